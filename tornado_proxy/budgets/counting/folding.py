"""Counts the records of the ledger: in the order of their commits, each once."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.budgets import brakes, token_budgets, warnings
from tornado_proxy.budgets.counting import ledger_records, ledger_sums
from tornado_proxy.budgets.counting.comparison import Compared, Comparison
from tornado_proxy.budgets.counting.counted_settlements import list_corrections
from tornado_proxy.budgets.counting.counters import (
    CounterChanges,
    CounterKey,
    decode_keys,
    insert_counters,
    list_kinds_with_counters,
    make_keys,
)
from tornado_proxy.budgets.counting.cursor import (
    delete_cursor,
    has_cursor,
    insert_cursor,
    lock_cursor,
    read_cursor,
    set_cursor,
)
from tornado_proxy.budgets.counting.expected_counters import ExpectedCounters
from tornado_proxy.budgets.counting.ledger_records import CountedRecord, RecordGroup
from tornado_proxy.budgets.counting.ledger_sums import Add, CounterAmount
from tornado_proxy.budgets.counting.record_source import RecordSource
from tornado_proxy.domain.budgets.brake import Brake, BrakeLimits
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, decode_kind, encode_kind
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.changes import find_last_seq
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_log = logging.getLogger(__name__)

_SELECT_KINDS = "SELECT kind FROM budget_kinds"
_INSERT_KIND = "INSERT INTO budget_kinds (kind) VALUES (?) ON CONFLICT (kind) DO NOTHING"
_SELECT_RESERVATION = (
    "SELECT state, total, subtotal, counters, counted_total, counted_subtotal FROM budget_reservations "
    "WHERE request_id = ?"
)
#: Those that a record frees.  Few or none: most requests reserve from slices.
_SELECT_ANY = "SELECT 1 FROM budget_reservations WHERE state IN ('open', 'held') LIMIT 1"
_SELECT_OPEN = (
    "SELECT request_id FROM budget_reservations WHERE state IN ('open', 'held') AND request_id >= ? AND request_id <= ?"
)
_SELECT_AMOUNTS = "SELECT request_id, total, subtotal, counters FROM budget_reservations WHERE request_id IN"
_SELECT_UNSETTLED = "SELECT request_id FROM budget_reservations WHERE state IN ('pending', 'given_up')"
_TRACK = (
    "INSERT INTO budget_reservations (request_id, writer, state, started_at, total, subtotal, counters, "
    "counted_total, counted_subtotal) VALUES (?, '', 'pending', ?, '0', '0', '[]', ?, ?) "
    "ON CONFLICT (request_id) DO NOTHING"
)
_SET_STATE = "UPDATE budget_reservations SET state = ?, counted_total = ?, counted_subtotal = ? WHERE request_id = ?"
_FREE = "UPDATE budget_reservations SET total = '0', subtotal = '0', counters = '[]' WHERE request_id = ?"
_DELETE = "DELETE FROM budget_reservations WHERE request_id = ?"
_SELECT_ORPHANS = "SELECT request_id FROM budget_reservations WHERE state = 'open' AND writer = ?"
_SELECT_HELD = "SELECT request_id, counters FROM budget_reservations WHERE state = 'held'"
#: What the records of one ledger have made.
_TABLES_OF_A_LEDGER = ("budget_counters", "budget_kinds", "budget_reservations", "budget_leases", "leased_requests")
_DELETE_COUNTERS = "DELETE FROM budget_counters WHERE period_end < ?"

#: Request ids that one query names.
_MAX_IDS = 500


#: Opens an empty SQLite file, and removes it at the end of the `with` block.
OpenScratch = Callable[[], AbstractContextManager[Database]]


class Folding:
    """Counts the records of one ledger, and the settlements of those whose usage came later."""

    def __init__(
        self, databases: tuple[Database, Database], dialect: Dialect, source: RecordSource, open_scratch: OpenScratch
    ) -> None:
        """Count with the budgets' database and the ledger; `open_scratch` is for correct()."""
        self._budgets, self._ledger = databases
        self._open_scratch = open_scratch
        self._dialect = dialect
        self._source = source
        #: Called with the seqs of records that were counted, and their groups.
        self.on_counted: Callable[[range, Sequence[RecordGroup]], None] = lambda _seqs, _groups: None
        #: True if the reservation of a record without a known cost stays until its period ends.
        self.hold = True
        #: The limits in force; the warnings that were claimed since take_warnings() was called.
        self.limits = BudgetLimits()
        self._warnings: list[BudgetWarning] = []
        #: USD that projects may spend in a minute, by project id.
        self.brakes: Mapping[str, BrakeLimits] = {}
        self._has_new_trips = False

    def begin(self) -> None:
        """Begin to count at the last record of the ledger, if nothing of this ledger was counted before."""
        counted = read_cursor(self._budgets) if has_cursor(self._budgets) else 0
        last_seq = find_last_seq(self._ledger, self._dialect.wait_for_writers)
        if counted > last_seq:
            self._forget_newer_ledger(counted, last_seq)
        with self._budgets.transaction():
            if has_cursor(self._budgets):
                return
            insert_cursor(self._budgets, last_seq)
            # Their settlements come later.  What they count as now is the sum of their bills.
            pending = ledger_records.list_pending(self._ledger, last_seq)
            for bill in ledger_records.read_bills(self._ledger, pending):
                values = (bill.request_id, format_time(bill.started_at), f"{bill.total:f}", f"{bill.subtotal:f}")
                self._budgets.run(_TRACK, values)

    def _forget_newer_ledger(self, counted: int, last_seq: int) -> None:
        """Forget what was counted and reserved with another ledger, such as the one that a backup has replaced.

        Its records had numbers that new ones will have again, which would not be counted.
        """
        with self._budgets.transaction():
            if read_cursor(self._budgets) != counted:
                return  # another process has done so
            for table in _TABLES_OF_A_LEDGER:
                self._budgets.run(f"DELETE FROM {table}")  # noqa: S608  # names of ours
            delete_cursor(self._budgets)
        _log.warning("the ledger is older than its budgets; they are counted anew", extra={"last_seq": last_seq})

    def fold(self) -> None:
        """Count the records that the ledger has committed since the last call, in any process."""
        while self.fold_batch():
            pass

    def fold_batch(self) -> bool:
        """Count some of the records that are not counted yet; return True if there are more."""
        last_seq = find_last_seq(self._ledger, self._dialect.wait_for_writers)
        if read_cursor(self._budgets) >= last_seq:
            return False  # most calls end here, without a transaction
        with self._folding() as (cursor, changes):
            groups, reached = self._source.read(cursor, last_seq, by_second=bool(self.brakes))
            self._count(groups, changes)
            self._end_reservations(groups, changes)
            if self.brakes and brakes.count(self._budgets, self.brakes, groups, datetime.now(UTC)):
                self._has_new_trips = True
            set_cursor(self._budgets, reached)
        self.on_counted(range(cursor + 1, reached + 1), groups)
        return reached < last_seq

    def fold_settlements(self) -> None:
        """Count the settlements of records whose usage was not known when they were counted."""
        with self._folding() as (_, changes):
            waiting = [str(request_id) for (request_id,) in self._budgets.fetch_rows(_SELECT_UNSETTLED)]
            final = ledger_records.find_ids(self._ledger, "settlements", waiting)
            given_up = ledger_records.find_ids(self._ledger, "given_up", waiting) - final
            kinds = self.read_kinds()
            for bill in ledger_records.read_bills(self._ledger, sorted(final | given_up)):
                self._settle(bill, kinds, changes, final=bill.request_id in final)

    def register(self, wanted: Iterable[CounterKind], now: datetime) -> None:
        """Count these kinds from now on, and the ledger's records of their current periods."""
        new = [kind for kind in dict.fromkeys(wanted) if kind not in self.read_kinds()]
        if not new:
            return
        self.fold()
        sums: defaultdict[CounterKey, Decimal] = defaultdict(Decimal)

        def add(amounts: Iterable[CounterAmount]) -> None:
            for key, amount in amounts:
                sums[key] += amount

        cursor = self._add_records(new, now, add)
        with self._folding() as (last_seq, changes):
            # Another process can have begun to count one meanwhile: two start at the same time.
            added = {encode_kind(kind) for kind in new} - {encode_kind(kind) for kind in self.read_kinds()}
            add(ledger_sums.list_amounts(self._ledger, self._dialect, new, now, (cursor, last_seq)))
            add(list_corrections((self._budgets, self._ledger), new, now, last_seq))
            self._begin_kinds(added, sums, changes)

    def _begin_kinds(self, kinds: set[str], sums: Mapping[CounterKey, Decimal], changes: CounterChanges) -> None:
        """Make the counters of kinds that were not counted before, and note the kinds."""
        existing = list_kinds_with_counters(self._budgets, kinds)
        insert_counters(self._budgets, {key: usd for key, usd in sums.items() if key.kind in kinds - existing})
        for key, amount in sums.items():
            if key.kind in existing:
                changes.settle(key, amount)
        for kind in sorted(kinds):
            self._budgets.run(_INSERT_KIND, (kind,))

    def correct(self, now: datetime) -> Decimal:
        """Compare the current counters with the ledger, correct them, and return the sum of the differences in USD.

        Nothing is locked while they do not differ.  Those whose records may have been pruned are left alone.
        """
        self.fold()
        self.fold_settlements()
        kinds = ledger_sums.list_whole(self._ledger, self.read_kinds(), now)
        total = Decimal(0)
        with self._open_scratch() as scratch:
            expected = ExpectedCounters(scratch)
            cursor = self._add_records(kinds, now, expected.add)
            compared = Compared(self._budgets, self._ledger, self._dialect, kinds, now)
            comparison = Comparison(compared, expected, cursor)
            for keys in comparison.find_differing():
                with self._folding() as (last_seq, changes):
                    for key, difference in comparison.list_differences(keys, last_seq).items():
                        changes.settle(key, difference)
                        total += abs(difference)
        return total

    def free_orphans(self, writer: str) -> None:
        """Hold or free the reservations of a process that has died.

        A lost intent leaves a request whose cost nothing tells: it is held.  A request without an intent and without a
        record was not sent.
        """
        orphans = [str(request_id) for (request_id,) in self._budgets.fetch_rows(_SELECT_ORPHANS, (writer,))]
        recorded = ledger_records.find_ids(self._ledger, "records", orphans)
        lost = ledger_records.find_ids(self._ledger, "intents", orphans)
        with self._folding() as (_, changes):
            for request_id in orphans:
                if request_id in lost and self.hold:
                    self._budgets.run(_SET_STATE, ("held", "0", "0", request_id))
                elif request_id not in recorded:
                    self._free(request_id, changes)

    def forget_ended(self, before: datetime) -> None:
        """Delete counters whose period ended before `before`, and held reservations that only they count."""
        ended = format_time(before)
        with self._folding():
            for request_id, counters in self._budgets.fetch_rows(_SELECT_HELD):
                keys = decode_keys(str(counters))
                if all(key.period_end is not None and key.period_end < ended for key in keys):
                    self._budgets.run(_DELETE, (request_id,))
            self._budgets.run(_DELETE_COUNTERS, (ended,))
            warnings.forget_ended(self._budgets, ended)
            token_budgets.forget_expired(self._budgets, ended)
            brakes.forget_old(self._budgets, datetime.now(UTC))

    def check_warnings(self, now: datetime) -> None:
        """Claim the warnings of all counters: a limit has changed, or its time has ended."""
        for claimed in warnings.claim_all(self._budgets, self._dialect.row_lock, self.limits, now):
            self._warnings += claimed

    def take_warnings(self) -> list[BudgetWarning]:
        """Return the warnings that this process has claimed since the last call."""
        claimed, self._warnings = self._warnings, []
        return claimed

    def list_untold(self, before: datetime) -> list[BudgetWarning]:
        """Return the warnings that any process has claimed before a time, and whose alert is not stored."""
        return warnings.list_untold(self._budgets, before)

    def forget_alert(self, warning: BudgetWarning) -> None:
        """Forget a warning whose alert is stored."""
        with self._budgets.transaction():
            warnings.forget_alert(self._budgets, warning)

    def take_new_trips(self) -> bool:
        """Return True if a limit of USD per minute was passed since the last call."""
        found, self._has_new_trips = self._has_new_trips, False
        return found

    def list_trips(self) -> list[Brake]:
        """Return the limits of USD per minute that were passed, in any process, and whose stop was not made yet."""
        return brakes.list_trips(self._budgets)

    def forget_trip(self, trip_id: str) -> None:
        """Forget a limit of USD per minute whose stop was made."""
        with self._budgets.transaction():
            brakes.forget_trip(self._budgets, trip_id)

    @contextlib.contextmanager
    def _folding(self) -> Iterator[tuple[int, CounterChanges]]:
        """Run a transaction that alone counts; yield the cursor and the changes to make at its end."""
        changes = CounterChanges()
        with self._budgets.transaction():
            yield lock_cursor(self._budgets, self._dialect.row_lock), changes
            settled = changes.apply(self._budgets, self._dialect.row_lock)
            claimed = warnings.claim(self._budgets, self.limits, settled, datetime.now(UTC))
        self._warnings += claimed

    def read_kinds(self) -> list[CounterKind]:
        """Return the kinds that are counted."""
        return [decode_kind(str(kind)) for (kind,) in self._budgets.fetch_rows(_SELECT_KINDS)]

    def _count(self, groups: Iterable[RecordGroup], changes: CounterChanges) -> None:
        kinds = self.read_kinds()
        amounts = {kind.amount for kind in kinds}
        for group in groups:
            sums = {amount: group.sum(amount) for amount in amounts}
            for kind in kinds:
                for key in make_keys(kind, group.spender, group.began):
                    changes.settle(key, sums[kind.amount])

    def _end_reservations(self, groups: Iterable[RecordGroup], changes: CounterChanges) -> None:
        """Free what requests have reserved, unless their cost is not known yet."""
        ended: list[str] = []
        unknown: list[str] = []
        for group in groups:
            is_known = group.basis is not Basis.PENDING and not (group.basis is Basis.UNSETTLED and self.hold)
            (ended if is_known else unknown).extend(group.request_ids)
        for record in ledger_records.read_originals(self._ledger, unknown):
            values = (*_format_amounts(record), record.request_id)
            if record.basis is Basis.PENDING:
                self._budgets.run(_TRACK, (record.request_id, format_time(record.started_at), *values[:2]))
                self._budgets.run(_SET_STATE, ("pending", *values))
            else:
                self._budgets.run(_SET_STATE, ("held", *values))
        if ended and self._budgets.fetch_rows(_SELECT_ANY):
            reserved = {str(row[0]) for row in self._budgets.fetch_rows(_SELECT_OPEN, (min(ended), max(ended)))}
            freed = sorted(reserved.intersection(ended))
            for start in range(0, len(freed), _MAX_IDS):
                self._free_all(freed[start : start + _MAX_IDS], changes)

    def _free_all(self, request_ids: Sequence[str], changes: CounterChanges) -> None:
        """Free the reservations that exist, with two statements."""
        sql = f"{_SELECT_AMOUNTS} ({', '.join('?' * len(request_ids))})"
        rows = self._budgets.fetch_rows(sql, request_ids)
        for _, total, subtotal, keys in rows:
            changes.free(str(keys), Decimal(str(total)), Decimal(str(subtotal)))
        self._budgets.delete("budget_reservations", "request_id", [row[0] for row in rows])

    def _settle(
        self, bill: CountedRecord, kinds: Sequence[CounterKind], changes: CounterChanges, *, final: bool
    ) -> None:
        rows = self._budgets.fetch_rows(_SELECT_RESERVATION, (bill.request_id,))
        for state, _, _, _, counted_total, counted_subtotal in rows:
            if state == "given_up" and not final:
                return
            counted = {Amount.TOTAL: Decimal(str(counted_total)), Amount.SUBTOTAL: Decimal(str(counted_subtotal))}
            for kind in kinds:
                for key in make_keys(kind, bill.spender, bill.started_at):
                    changes.settle(key, bill.amount(kind.amount) - counted[kind.amount])
            if final:
                self._free(bill.request_id, changes)
                return
            # Its figures are shown until there are final ones; an unknown cost stays reserved.
            values = (f"{bill.total:f}", f"{bill.subtotal:f}", bill.request_id)
            self._budgets.run(_SET_STATE, ("given_up", *values))
            if bill.basis is not Basis.UNSETTLED or not self.hold:
                self._free_counters(bill.request_id, changes)
                self._budgets.run(_FREE, (bill.request_id,))

    def _free(self, request_id: str, changes: CounterChanges) -> None:
        self._free_counters(request_id, changes)
        self._budgets.run(_DELETE, (request_id,))

    def _free_counters(self, request_id: str, changes: CounterChanges) -> None:
        for _, total, subtotal, keys, _, _ in self._budgets.fetch_rows(_SELECT_RESERVATION, (request_id,)):
            changes.free(str(keys), Decimal(str(total)), Decimal(str(subtotal)))

    def _add_records(self, kinds: Sequence[CounterKind], now: datetime, add: Add) -> int:
        """Add the amounts of the records that are counted, without their settlements; return the cursor.

        It can take seconds in a large ledger, so it locks nothing.
        """
        summed = ledger_sums.read_sums(self._ledger, kinds, now, add)
        self.fold()  # then the cursor is not before the last record of any sum
        last_seq = read_cursor(self._budgets)
        for part in summed:
            add(ledger_sums.list_amounts(self._ledger, self._dialect, part.kinds, now, (part.seq, last_seq)))
        return last_seq


def _format_amounts(record: CountedRecord) -> tuple[str, str]:
    return f"{record.total:f}", f"{record.subtotal:f}"
