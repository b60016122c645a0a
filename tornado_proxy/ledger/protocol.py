"""What the server asks of a ledger, whatever store is behind it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tornado_proxy.domain.record import PendingRequest, RequestIntent, RequestRecord, Settlement
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult


class Ledger(Protocol):
    """An append-only store of call records.  Used from one event loop."""

    @property
    def healthy(self) -> bool:
        """Whether new requests may start."""

    @property
    def reason(self) -> str:
        """Why it is not healthy, in words for an operator; "" while it is."""

    @property
    def pending(self) -> int:
        """Writes that wait for their commit."""

    async def open(self) -> None:
        """Open the store, and make records of the intents that a dead process left behind.

        Raises:
            LedgerUnavailable: it cannot be opened; the message says what to do.
        """

    async def begin(self, intent: RequestIntent) -> None:
        """Store an intent; it is durable when this returns.

        Raises:
            LedgerUnavailable: it could not be stored.
        """

    def finish(self, record: RequestRecord) -> asyncio.Future[None]:
        """Store a record, at the latest within 100 ms while the store works; never blocks, never loses it.

        What is given is done when the record is durable.  A second record of one request is not stored.
        """

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store what a pending call came to, as finish() stores a record; the first one of a call holds."""

    async def pending_requests(self, limit: int) -> list[PendingRequest]:
        """Up to `limit` calls whose usage is still to come, oldest first."""

    async def owner_of(self, provider: str, object_id: str) -> str | None:
        """The project that created one of the provider's objects; None for one that is not known."""

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """The objects that a project created by calls to `endpoint`."""

    async def usage(self, question: UsageQuery) -> UsageResult:
        """What usage comes to.  Read beside the writer, in bounded time; never blocks the event loop.

        Raises:
            BadRequest: too much usage for one answer.
            Overloaded: too many questions wait.
            LedgerUnavailable: it cannot be read.
        """

    async def close(self) -> None:
        """Write what is pending and close the store."""
