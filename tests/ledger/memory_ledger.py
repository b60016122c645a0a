"""An in-memory Ledger for tests of code that uses one.

It passes tests/ledger/test_contract.py, and shows the values that it received: `begun`, `written_ahead`, `finished`,
`settled`.
`fail(reason)` makes it refuse new requests, as a full disk does, until `recover()`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from msgspec.structs import asdict

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, Outcome, PendingRequest, RequestIntent, RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.columns import RECORD_COLUMNS, SETTLED_COLUMNS
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows
from tornado_proxy.ledger.reports.ranking import RankedQuery, RankedUsage, rank_usage
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.request_lookup import COLUMNS, RequestLookup
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_sums import sum_usage
from tornado_proxy.ledger.rows import make_intent_row, make_record_row, make_settlement_row

#: A row of the view `bills`.
Row = Mapping[str, object]

#: The bounds of one report; tests store a few records.
_MAX_RECORDS = 100_000
_REPORT_S = 10.0

_COLUMN_FILTERS = (
    *("project_id", "room", "participant", "user", "session", "provider", "endpoint", "basis", "provider_key"),
)


@dataclass(slots=True)
class MemoryStore:
    """The rows that several ledgers share, as several processes share a database.

    `intents` holds each open intent with the ledger that wrote it.
    """

    intents: dict[str, tuple[MemoryLedger, RequestIntent]] = field(default_factory=dict)
    lost: dict[str, RequestIntent] = field(default_factory=dict)
    records: dict[str, RequestRecord] = field(default_factory=dict)
    settlements: dict[str, Settlement] = field(default_factory=dict)
    given_up: dict[str, Settlement] = field(default_factory=dict)
    owners: dict[tuple[str, str], RequestRecord] = field(default_factory=dict)

    def add_record(self, record: RequestRecord) -> None:
        """Store a record in its intent's place, unless the request has a record."""
        request_id = record.intent.request_id
        self.intents.pop(request_id, None)
        self.lost.pop(request_id, None)
        if self.records.setdefault(request_id, record) is not record:
            return
        for object_id in (record.object_id, *record.objects):
            if object_id is not None:
                self.owners.setdefault((record.intent.provider, object_id), record)

    def lose_intents(self) -> None:
        """Move the intents of closed ledgers to `lost`."""
        for request_id, (ledger, intent) in list(self.intents.items()):
            if ledger.closed:
                del self.intents[request_id]
                self.lost[request_id] = intent

    def bills(self) -> list[Row]:
        """Return the rows of the view `bills`, oldest first."""
        rows = [self._bill(record) for record in self.records.values()]
        rows += [_lost_row(intent) for intent in self.lost.values()]
        return sorted(rows, key=lambda row: str(row["started_at"]))

    def _bill(self, record: RequestRecord) -> Row:
        row = {**asdict(make_record_row(record)), "retry_of": None}
        request_id = record.intent.request_id
        settlement = self.settlements.get(request_id) or self.given_up.get(request_id)
        if settlement is not None:
            settled = make_settlement_row(settlement)
            row.update((name, getattr(settled, name)) for name in SETTLED_COLUMNS)
        return row


class MemoryLedger:
    """A Ledger in memory; satisfies tornado_proxy.ledger.protocol.Ledger.  It may be used without open()."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.begun: list[RequestIntent] = []
        self.written_ahead: list[RequestRecord] = []
        self.finished: list[RequestRecord] = []
        self.settled: list[Settlement] = []
        self.closed = False
        self._reason = ""
        self._writes: list[tuple[Callable[[], None], asyncio.Future[None]]] = []

    @property
    def healthy(self) -> bool:
        """True if new requests may start."""
        return not self.reason

    @property
    def reason(self) -> str:
        """The reason why it is not healthy, or ""."""
        return "closed" if self.closed else self._reason

    @property
    def pending(self) -> int:
        """The number of writes that wait for the next turn of the event loop."""
        return len(self._writes)

    def fail(self, reason: str = "the disk is full") -> None:
        """Refuse new requests, and keep records waiting, until recover()."""
        self._reason = reason

    def recover(self) -> None:
        """Accept requests again, and write the records that wait."""
        self._reason = ""
        self._flush()

    async def open(self) -> None:
        """Make the intents of closed ledgers lost requests."""
        self.closed = False
        self.store.lose_intents()

    async def begin(self, intent: RequestIntent) -> None:
        """Store an intent.  Raise LedgerUnavailable while the ledger is not healthy."""
        self._check()
        self.begun.append(intent)
        self.store.intents[intent.request_id] = (self, intent)

    def write_ahead(self, record: RequestRecord) -> None:
        """Note a record that finish() stores later."""
        self.written_ahead.append(record)

    def finish(self, record: RequestRecord) -> asyncio.Future[None]:
        """Store a record in the next turn of the event loop."""
        self.finished.append(record)
        return self._write(lambda: self.store.add_record(record))

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store a settlement in the next turn of the event loop, unless its request has one."""
        self.settled.append(settlement)
        return self._write(lambda: self._settle(settlement))

    async def pending_requests(self, limit: int, after: int = 0) -> list[PendingRequest]:
        """Return up to `limit` requests whose usage the provider reports later, in the order of their records."""
        self._flush()
        waiting = (
            replace(request, seq=seq)
            for seq, record in enumerate(self.store.records.values(), start=1)
            if (request := PendingRequest.of(record)) and request.request_id not in self.store.settlements
        )
        return list(itertools.islice((request for request in waiting if request.seq > after), limit))

    async def pending_request(self, provider: str, object_id: str) -> PendingRequest | None:
        """Return the request that created an object if its usage is not known yet, else None."""
        waiting = await self.pending_requests(len(self.store.records))
        named = (request for request in waiting if (request.provider, request.object_id) == (provider, object_id))
        return next(named, None)

    async def owner_of(self, provider: str, object_id: str) -> ObjectOwner | None:
        """Return the owner of an object, or None."""
        self._flush()
        record = self.store.owners.get((provider, object_id))
        return None if record is None else ObjectOwner(record.intent.caller.project_id, record.intent.key)

    async def keys_of(self, project_id: str, provider: str, endpoint: str) -> Mapping[str, KeyId]:
        """Return the known keys of the objects of owned_by()."""
        owned = await self.owned_by(project_id, provider, endpoint)
        keys = {object_id: self.store.owners[provider, object_id].intent.key for object_id in owned}
        return {object_id: key for object_id, key in keys.items() if key is not None}

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """Return the objects that a project created by requests to `endpoint`."""
        self._flush()
        return frozenset(
            object_id
            for (owner, object_id), record in self.store.owners.items()
            if (owner, record.object_id) == (provider, object_id)
            and (record.intent.caller.project_id, record.intent.endpoint) == (project_id, endpoint)
        )

    async def usage(self, query: UsageQuery) -> UsageResult:
        """Return the usage of the records that are written."""
        self._check()
        names = [column.strip('"') for column in query.columns]
        rows = [row for row in self.store.bills() if _is_selected(row, query.which)]
        texts = [[_text(row[name]) for name in names] for row in rows]
        return sum_usage(texts, query, Bounds(_MAX_RECORDS, time.monotonic() + _REPORT_S))

    async def ranked_usage(self, query: RankedQuery) -> RankedUsage:
        """Return the dearest groups of the usage of the records that are written."""
        groups = () if query.query.interval is not None else query.query.group_by
        before = replace(query.query, which=query.previous, interval=None, group_by=groups)
        current, previous = [list_group_rows(await self.usage(each)) for each in (query.query, before)]
        return rank_usage(current, previous, query)

    async def find_requests(self, lookup: RequestLookup) -> list[Row]:
        """Return the records of one request of a caller."""
        self._check()
        selected = {"project_id": lookup.project_id, **dict(lookup.caller)}
        ids = ("request_id", "upstream_request_id", "object_id")
        return [
            {name: row[name] for name in COLUMNS}
            for row in self.store.bills()
            if selected.items() <= row.items() and lookup.request_id in [row[name] for name in ids]
        ]

    async def list_records(self, query: RecordsQuery) -> list[Row]:
        """Return one page of records."""
        self._check()
        rows = sorted(self.store.bills(), key=_find_place, reverse=True)
        selected = [
            row
            for row in rows
            if _is_selected(row, query.which) and (query.before is None or _find_place(row) < query.before)
        ]
        return [{name: row[name] for name in query.columns} for row in selected[: query.limit]]

    async def close(self) -> None:
        """Write the pending records and settlements, even after fail(): a real ledger has its journal for them."""
        self._reason = ""
        self._flush()
        self.closed = True

    def _check(self) -> None:
        if self.reason:
            raise LedgerUnavailable(f"the ledger cannot be written: {self.reason}")

    def _write(self, write: Callable[[], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._writes.append((write, done))
        # Not at once: callers of a real ledger see a pending future too.
        loop.call_soon(self._flush)
        return done

    def _flush(self) -> None:
        if self._reason:
            return
        writes, self._writes = self._writes, []
        for write, done in writes:
            write()
            if not done.done():
                done.set_result(None)

    def _settle(self, settlement: Settlement) -> None:
        settlements = self.store.settlements if settlement.final else self.store.given_up
        settlements.setdefault(settlement.request_id, settlement)


def _lost_row(intent: RequestIntent) -> Row:
    """Return the row of a request whose process died; the schema's view says the same in SQL."""
    unknown: Mapping[str, object] = dict.fromkeys(RECORD_COLUMNS)
    figures = {"line_items": "[]", "subtotal": "0", "surcharge": "0", "total": "0"}
    ends = {"outcome": Outcome.CRASHED.value, "basis": Basis.UNSETTLED.value}
    return {**unknown, **asdict(make_intent_row(intent)), **figures, **ends}


def _is_selected(row: Row, which: UsageFilter) -> bool:
    started_at = str(row["started_at"])
    return (
        all(getattr(which, name) in (None, row[name]) for name in _COLUMN_FILTERS)
        and which.model in (None, row["model"] or row["model_requested"])
        and which.request_id in (None, row["request_id"])
        and (which.since is None or started_at >= which.since)
        and (which.until is None or started_at < which.until)
    )


def _find_place(row: Row) -> tuple[str, str]:
    return str(row["started_at"]), str(row["request_id"])


def _text(value: object) -> str | None:
    return None if value is None else str(value)
