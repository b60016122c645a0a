"""The Ledger protocol: everything that the server uses of a ledger, for every database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, PendingRequest, RequestIntent, RequestRecord, Settlement
from tornado_proxy.ledger.reports.ranking import RankedQuery, RankedUsage
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import Record
from tornado_proxy.ledger.reports.request_lookup import RequestLookup
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult


class Ledger(Protocol):
    """An append-only store of request records, used from one event loop."""

    @property
    def healthy(self) -> bool:
        """True if new requests may start."""

    @property
    def reason(self) -> str:
        """The reason why it is not healthy, for an operator; "" while it is healthy."""

    @property
    def pending(self) -> int:
        """The number of writes that are not committed yet."""

    async def open(self) -> None:
        """Open the database, and mark the intents that a dead process left open as lost.

        Raises:
            LedgerUnavailable: it cannot be opened; the message names the remedy.
        """

    async def begin(self, intent: RequestIntent) -> None:
        """Store an intent, or another bound of one that is stored; it is durable when this returns.

        Raises:
            LedgerUnavailable: it could not be stored; the request must not be sent.
        """

    def write_ahead(self, record: RequestRecord) -> None:
        """Make a record durable against the death of the process, before the last byte of its response leaves.

        Never blocks or raises.  finish() stores the record, with the end that the response had for the client; a
        process that dies before that leaves this record.
        """

    def finish(self, record: RequestRecord) -> asyncio.Future[None]:
        """Store a record, within 100 ms while the database works.  Never blocks, and never loses a record.

        The record survives the death of the process when this returns.

        Returns:
            A future that is done when the record is durable.  A second record of a request is not stored.
        """

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store the settlement of a pending record, as finish() stores a record.

        Only the first final settlement of a request is stored, and the first one that is not final.
        """

    async def pending_requests(self, limit: int, after: int = 0) -> list[PendingRequest]:
        """Return up to `limit` requests whose usage the provider reports later, oldest first, with seq > `after`.

        Requests that were given up are among them: they can be settled later.
        """

    async def pending_request(self, provider: str, object_id: str) -> PendingRequest | None:
        """Return the request that created an object if its usage is not known yet, else None."""

    async def owner_of(self, provider: str, object_id: str) -> ObjectOwner | None:
        """Return the owner of an object of the provider; None for an unknown object."""

    async def keys_of(self, project_id: str, provider: str, endpoint: str) -> Mapping[str, KeyId]:
        """Return the provider keys, as far as they are known, of the objects of owned_by(), by their ids."""

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """Return the ids of the objects that a project created by requests to `endpoint`."""

    async def usage(self, query: UsageQuery) -> UsageResult:
        """Return the usage that a query selects.  Takes bounded time, and does not block the event loop.

        Raises:
            BadRequest: there is too much usage for one result.
            Overloaded: too many queries wait.
            LedgerUnavailable: the ledger cannot be read.
        """

    async def ranked_usage(self, query: RankedQuery) -> RankedUsage:
        """Return the dearest groups of the usage that a query selects.  Takes bounded time, as usage().

        Raises:
            BadRequest: there is too much usage for one result.
            Overloaded: too many queries wait.
            LedgerUnavailable: the ledger cannot be read.
        """

    async def find_requests(self, lookup: RequestLookup) -> Sequence[Record]:
        """Return the records of one request of a caller, [] if there are none.  Takes bounded time, as usage().

        Raises:
            RateLimited: too many queries of the caller wait.
            Overloaded: too many queries wait, or the search takes too long.
            LedgerUnavailable: the ledger cannot be read.
        """

    async def list_records(self, query: RecordsQuery) -> Sequence[Record]:
        """Return one page of records, newest first.  Takes bounded time, as usage().

        Raises:
            RateLimited: too many queries of the caller wait.
            Overloaded: too many queries wait.
            BadRequest: the search takes too long.
            LedgerUnavailable: the ledger cannot be read.
        """

    async def close(self) -> None:
        """Write the pending operations and close the database."""
