"""Leases slices of counters for this process, and gives them back, in the database of the budgets.

budget_leases      what each process has leased of each counter, and uses of it; the counter's `reserved` contains it
leased_requests    the requests under way that have reserved from slices, if they run for longer than a second

A process trims its slices one to four times a second while it has any; the part that it has not used for two seconds
goes back.  The slices of a process that has died are freed when its records are counted; the requests that it has lost,
and those whose records have no known cost, are held, with the bounds that the ledger has of them (unheld_requests.py).

    refused, and other processes have slices of the counter:

    this process ── recalled = 1 ──> the rows of the others ──> each gives its idle part back, recalled = 0
         └── decides again when all have, or after two seconds
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.counting.counters import (
    COLUMNS,
    HAS_KEY,
    KEY_COLUMNS,
    CounterChanges,
    CounterKey,
    encode_keys,
    lock_counter,
    make_keys,
    write_counter,
)
from tornado_proxy.budgets.counting.cursor import lock_cursor, read_cursor
from tornado_proxy.budgets.counting.ledger_records import RecordGroup
from tornado_proxy.budgets.leases import unheld_requests
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.leases.unheld_requests import UnheldRequest
from tornado_proxy.domain.budgets.counter import CounterKind
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.request_id import begin_of_ids, read_time
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert
from tornado_proxy.ledger.rows import format_time

_SELECT_OWN = f"SELECT amount, recalled FROM budget_leases WHERE writer = ? AND {HAS_KEY}"  # noqa: S608
_UPSERT = (
    f"INSERT INTO budget_leases (writer, {COLUMNS}, amount, used, recalled, renewed_at) "  # noqa: S608
    f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (writer, {KEY_COLUMNS}) "
    "DO UPDATE SET amount = excluded.amount, used = excluded.used, recalled = 0, renewed_at = excluded.renewed_at"
)
_DELETE = f"DELETE FROM budget_leases WHERE writer = ? AND {HAS_KEY}"  # noqa: S608
_RENEW = "UPDATE budget_leases SET renewed_at = ? WHERE writer = ?"
_COUNT_OWN = "SELECT count(*) FROM budget_leases WHERE writer = ?"
_SELECT_RECALLED = f"SELECT {COLUMNS} FROM budget_leases WHERE writer = ? AND recalled = 1"  # noqa: S608
_SELECT_OTHERS = f"SELECT writer FROM budget_leases WHERE writer <> ? AND {HAS_KEY}"  # noqa: S608
_SELECT_UNANSWERED = f"SELECT 1 FROM budget_leases WHERE writer = ? AND {HAS_KEY} AND recalled = 1"  # noqa: S608
_RECALL = f"UPDATE budget_leases SET recalled = 1 WHERE writer = ? AND {HAS_KEY}"  # noqa: S608
_SELECT_IDLE = f"SELECT {COLUMNS}, amount, used FROM budget_leases"  # noqa: S608
_SELECT_OF = f"{_SELECT_IDLE} WHERE writer = ?"
_DELETE_SHOWN = "DELETE FROM leased_requests WHERE writer = ?"
_DELETE_OF = ("DELETE FROM budget_leases WHERE writer = ?", _DELETE_SHOWN)
_SELECT_PENDING = "SELECT 1 FROM budget_reservations WHERE request_id = ? AND state = 'pending' AND counters = '[]'"
_SET_PENDING = "UPDATE budget_reservations SET total = ?, subtotal = ?, counters = ? WHERE request_id = ?"

_INSERT_HELD = (
    "INSERT INTO budget_reservations (request_id, writer, state, started_at, total, subtotal, counters, "
    "counted_total, counted_subtotal) VALUES (?, ?, 'held', ?, ?, ?, ?, '0', '0') "
    "ON CONFLICT (request_id) DO NOTHING RETURNING request_id"
)
_SELECT_HELD = (
    "SELECT request_id, total, subtotal, counters FROM budget_reservations WHERE writer = ? AND state = 'held'"
)
_DELETE_HELD = "DELETE FROM budget_reservations WHERE request_id = ?"
INSERT_LEASED_REQUESTS = Insert(
    "leased_requests", ("request_id", "writer", "started_at", "total", "subtotal", "counters"), "request_id"
)

#: Seconds after which a request under way is written for `budget explain`.
_SHOWN_AFTER = timedelta(seconds=1)

#: Seconds between two writes of `renewed_at` of slices that do not change.
_RENEW_S = 30.0


def create_lease_tables(sql: Dialect) -> str:
    """Return the SQL that makes the tables that do not exist."""
    return f"""
CREATE TABLE IF NOT EXISTS budget_leases (
    writer {sql.text} NOT NULL,
    kind {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    period_begin {sql.text} NOT NULL,
    period_end {sql.text},
    amount {sql.text} NOT NULL,
    used {sql.text} NOT NULL,
    recalled {sql.number} NOT NULL,
    renewed_at {sql.text} NOT NULL,
    PRIMARY KEY (writer, {KEY_COLUMNS})
) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS leased_requests (
    request_id {sql.text} PRIMARY KEY,
    writer {sql.text} NOT NULL,
    started_at {sql.text} NOT NULL,
    total {sql.text} NOT NULL,
    subtotal {sql.text} NOT NULL,
    counters {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


class Leasing:
    """The leases of one process.

    Methods raise StoreError if a database fails.  The slices stay valid then; a new object with them continues.
    """

    def __init__(self, budgets: Database, ledger: Database, dialect: Dialect, writer_id: str, slices: Slices) -> None:
        self._budgets = budgets
        self._ledger = ledger
        self._dialect = dialect
        self._row_lock = dialect.row_lock
        self._writer_id = writer_id
        self._slices = slices
        self._shown: set[str] = set()
        if slices.slices:
            # After a fault: those that have ended are not known, the others are written again.
            budgets.run(_DELETE_SHOWN, (writer_id,))
        self._renewed_at = time.monotonic()
        #: True after a fault: another process may have held requests of this one that are under way.
        self._takes_back = bool(slices.requests)

    def sync(self, *, hold: bool) -> None:
        """Drop requests whose records are counted, and lease, trim and give back slices.

        Args:
            hold: True if the bound of a request of unknown cost counts until its period ends.
        """
        slices = self._slices
        cursor = read_cursor(self._budgets)
        if not (slices.slices or slices.requests or slices.to_hold or self._shown):
            slices.seen = cursor
            return
        self._drop_counted(cursor, hold=hold)
        slices.return_idle(self._list_recalled())
        now = time.monotonic()
        if now - self._renewed_at > _RENEW_S:
            self._renew(now)
        due = slices.list_due(now)
        shown = self._list_shown(datetime.now(UTC))
        if due or slices.to_hold or shown != self._shown:
            self._write(due, shown, now)
        if self._takes_back:
            self._take_back()
        slices.seen = max(slices.seen, cursor)

    def note_counted(self, seqs: range, groups: Iterable[RecordGroup], *, hold: bool) -> None:
        """Drop requests whose records this process has counted: those with `seqs`; `hold` as for sync()."""
        if seqs.start > self._slices.seen + 1:
            return  # another process has counted some before; sync() looks for all
        for group in groups if self._slices.requests else ():
            self._drop(group.basis, group.request_ids, hold=hold)
        self._slices.seen = max(self._slices.seen, seqs.stop - 1)

    def is_recalled(self) -> bool:
        """Return True if another process asks for what this one has idle."""
        return bool(self._slices.slices) and bool(self._list_recalled())

    def return_idle(self, keys: Collection[CounterKey], *, hold: bool) -> bool:
        """Give back what this process has idle of counters; return True if it had anything."""
        was_idle = self._slices.return_idle(keys)
        if was_idle:
            self.sync(hold=hold)
        return was_idle

    def recall(
        self, keys: Iterable[CounterKey], asked: Collection[tuple[str, CounterKey]] = ()
    ) -> frozenset[tuple[str, CounterKey]]:
        """Ask the other processes for the idle parts of their slices, except those in `asked`; return who has which."""
        held = {
            (str(writer), key)
            for key in keys
            for (writer,) in self._budgets.fetch_rows(_SELECT_OTHERS, (self._writer_id, *key.values))
        }
        recalls = held.difference(asked)
        # Each by itself: with several rows locked, it and _renew() could wait for each other.
        for writer, key in recalls:
            self._budgets.run(_RECALL, (writer, *key.values))
        return frozenset(recalls)

    def is_answered(self, recalls: Iterable[tuple[str, CounterKey]]) -> bool:
        """Return True if all processes have answered."""
        return not any(self._budgets.fetch_rows(_SELECT_UNANSWERED, (writer, *key.values)) for writer, key in recalls)

    def free(self, writer: str, kinds: Collection[CounterKind], *, hold: bool) -> None:
        """Free the slices of a process that has died, whose records are counted; hold its requests of unknown cost.

        `kinds` are those of the counters that hold bounds; `hold` as for sync().
        """
        cursor = read_cursor(self._budgets)  # first: the list lacks records that others store from now on
        unheld = [
            _make_holding(request, writer, kinds)
            for request in unheld_requests.list_unheld(self._ledger, writer)
            if hold or request.basis is Basis.PENDING
        ]
        self._free(writer, unheld)
        unheld_requests.forget_bounds(self._ledger, writer, cursor)

    def forget_held(self) -> None:
        """Forget the bounds in the ledger of this process's requests that are held."""
        if not self._slices.to_hold:
            unheld_requests.forget_bounds(self._ledger, self._writer_id, self._slices.seen)

    def list_unheld_writers(self) -> set[str]:
        """Return the processes that may have requests to hold."""
        return unheld_requests.list_writers(self._ledger)

    def read_idle(self) -> dict[CounterKey, Decimal]:
        """Return what processes have leased and not used, by counter."""
        idle: dict[CounterKey, Decimal] = {}
        for *key, amount, used in self._budgets.fetch_rows(_SELECT_IDLE):
            of = CounterKey(*key)  # type: ignore[arg-type]  # text
            idle[of] = idle.get(of, Decimal(0)) + Decimal(str(amount)) - Decimal(str(used))
        return idle

    def _drop_counted(self, cursor: int, *, hold: bool) -> None:
        if not self._slices.requests or cursor <= self._slices.seen:
            return
        for ended in ledger_records.read_ended(self._ledger, self._dialect, self._slices.seen, cursor):
            self._slices.count(ended.settled)
            self._drop(Basis.UNSETTLED, ended.unsettled, hold=hold)
            self._drop(Basis.PENDING, ended.pending, hold=hold)

    def _drop(self, basis: Basis, request_ids: Iterable[str], *, hold: bool) -> None:
        counted = self._slices.count(request_ids)
        if basis is Basis.PENDING or (basis is Basis.UNSETTLED and hold):
            self._slices.to_hold.update({request_id: (sliced, basis) for request_id, sliced in counted.items()})

    def _list_recalled(self) -> list[CounterKey]:
        rows = self._budgets.fetch_rows(_SELECT_RECALLED, (self._writer_id,))
        return [CounterKey(*row) for row in rows]  # type: ignore[arg-type]  # text

    def _renew(self, now: float) -> None:
        """Tell the other processes that this one uses its slices; write those that they have freed again."""
        self._budgets.run(_RENEW, (format_time(datetime.now(UTC)), self._writer_id))
        self._renewed_at = now
        ((count,),) = self._budgets.fetch_rows(_COUNT_OWN, (self._writer_id,))
        if int(str(count)) < sum(1 for one in list(self._slices.slices.values()) if one.granted):
            self._slices.forget()

    def _list_shown(self, now: datetime) -> set[str]:
        """Return the requests that have been under way for a second."""
        end = begin_of_ids(now - _SHOWN_AFTER)
        return {request_id for request_id in list(self._slices.requests) if request_id < end}

    def _take_back(self) -> None:
        """Stop holding requests under way, which are in slices again: they would be reserved twice."""
        with self._budgets.transaction():
            lock_cursor(self._budgets, self._row_lock)
            changes = CounterChanges()
            for request_id, total, subtotal, keys in self._budgets.fetch_rows(_SELECT_HELD, (self._writer_id,)):
                if str(request_id) in self._slices.requests:
                    changes.free(str(keys), Decimal(str(total)), Decimal(str(subtotal)))
                    self._budgets.run(_DELETE_HELD, (request_id,))
            changes.apply(self._budgets, self._row_lock)
        self._takes_back = False

    def _write(self, due: Collection[CounterKey], shown: set[str], now: float) -> None:
        try:
            with self._budgets.transaction():
                granted = self._write_leases(due, now)
                self._show(shown)
        except BaseException:
            # The rows may be written or not: the next sync reads them.
            self._slices.forget()
            raise
        self._slices.to_hold.clear()
        self._shown = shown
        self._slices.grant(granted)

    def _write_leases(self, due: Collection[CounterKey], now: float) -> dict[CounterKey, Decimal]:
        to_hold = self._slices.to_hold
        keys = sorted({*due, *(key for sliced, _ in to_hold.values() for key in sliced.amounts)})
        if to_hold:
            # Folding locks reservations before counters; so nothing folds meanwhile.
            lock_cursor(self._budgets, self._row_lock)
        figures = {key: list(lock_counter(self._budgets, self._row_lock, key)) for key in keys}
        for request_id, (sliced, basis) in to_hold.items():
            at = read_time(request_id)
            holding = _Holding(request_id, self._writer_id, basis, at, sliced.bound, sliced.amounts)
            for key, amount in self._hold(holding).items():
                figures[key][1] += amount
        granted = {key: self._lease(key, figures[key], now) for key in due}
        for key, (settled, reserved) in figures.items():
            write_counter(self._budgets, key, settled, reserved)
        return granted

    def _lease(self, key: CounterKey, figures: list[Decimal], now: float) -> Decimal:
        """Set the slice of a counter and add it to its figures; return the slice."""
        settled, reserved = figures
        rows = self._budgets.fetch_rows(f"{_SELECT_OWN} {self._row_lock}", (self._writer_id, *key.values))
        if rows and rows[0][1]:
            self._slices.return_idle([key])  # another process has asked since sync() has looked
        others = reserved - Decimal(str(rows[0][0]) if rows else "0")
        left = self._slices.begin_lease(key) - settled - others
        amount, used = self._slices.settle_lease(key, left, now)
        figures[1] = others + amount
        if amount:
            at = format_time(datetime.now(UTC))
            values = (key.period_end, f"{amount:f}", f"{used:f}", at)
            self._budgets.run(_UPSERT, (self._writer_id, *key.values, *values))
        elif rows:
            self._budgets.run(_DELETE, (self._writer_id, *key.values))
        return amount

    def _hold(self, holding: _Holding) -> Mapping[CounterKey, Decimal]:
        """Reserve the bound of a request, which was in slices, in a row; return what its counters reserve."""
        bound, amounts = holding.bound, holding.amounts
        values = (f"{bound.total:f}", f"{bound.subtotal:f}", encode_keys(tuple(amounts)))
        if holding.basis is Basis.PENDING:
            # Without a row it is settled already; one with counters is of a transaction whose COMMIT has failed here.
            if not self._budgets.fetch_rows(_SELECT_PENDING, (holding.request_id,)):
                return {}
            self._budgets.run(_SET_PENDING, (*values, holding.request_id))
            return amounts
        inserted = (holding.request_id, holding.writer, format_time(holding.started_at), *values)
        return amounts if self._budgets.fetch_rows(_INSERT_HELD, inserted) else {}

    def _show(self, shown: set[str]) -> None:
        """Write the requests under way that are not shown yet; delete those that have ended."""
        new = [(request_id, self._slices.requests.get(request_id)) for request_id in shown - self._shown]
        rows = [
            (
                request_id,
                self._writer_id,
                format_time(read_time(request_id)),
                f"{sliced.bound.total:f}",
                f"{sliced.bound.subtotal:f}",
                encode_keys(tuple(sliced.amounts)),
            )
            for request_id, sliced in new
            if sliced is not None
        ]
        self._budgets.insert(INSERT_LEASED_REQUESTS, rows)
        self._budgets.delete("leased_requests", "request_id", sorted(self._shown - shown))

    def _free(self, writer: str, unheld: Iterable[_Holding]) -> None:
        with self._budgets.transaction():
            lock_cursor(self._budgets, self._row_lock)
            changes = CounterChanges()
            for *key, amount, _ in self._budgets.fetch_rows(_SELECT_OF, (writer,)):
                changes.reserve(CounterKey(*key), -Decimal(str(amount)))  # type: ignore[arg-type]  # text
            for holding in unheld:
                for of, held in self._hold(holding).items():
                    changes.reserve(of, held)
            changes.apply(self._budgets, self._row_lock)
            for sql in _DELETE_OF:
                self._budgets.run(sql, (writer,))


@dataclass(frozen=True, slots=True)
class _Holding:
    """A request of unknown cost of a process, and the amounts that its counters are to reserve."""

    request_id: str
    writer: str
    basis: Basis
    started_at: datetime
    bound: CostBound
    amounts: Mapping[CounterKey, Decimal]


def _make_holding(request: UnheldRequest, writer: str, kinds: Iterable[CounterKind]) -> _Holding:
    bound = request.bound
    amounts = {
        key: kind.amount.choose(bound.total, bound.subtotal)
        for kind in kinds
        for key in make_keys(kind, request.spender, request.started_at)
    }
    return _Holding(request.request_id, writer, request.basis, request.started_at, bound, dict(sorted(amounts.items())))
