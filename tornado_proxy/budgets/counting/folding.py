"""Counts the records of the ledger: in the order of their commits, each once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.budgets import brakes, token_budgets, warnings
from tornado_proxy.budgets.counting import counted_kinds, ledger_records, ledger_sums, settlements
from tornado_proxy.budgets.counting.beginning import TRACK, begin_to_count
from tornado_proxy.budgets.counting.comparison import Compared, Comparison, Differing
from tornado_proxy.budgets.counting.counters import (
    KEY_COLUMNS,
    CounterChanges,
    decode_keys,
    make_keys,
    write_settled,
)
from tornado_proxy.budgets.counting.cursor import (
    lock_cursor,
    read_cursor,
    read_position,
    set_change_cursor,
    set_cursor,
)
from tornado_proxy.budgets.counting.expected_counters import ExpectedCounters
from tornado_proxy.budgets.counting.ledger_records import CountedRecord, RecordGroup
from tornado_proxy.budgets.counting.ledger_sums import Add
from tornado_proxy.budgets.counting.settlements import Settlement
from tornado_proxy.domain.budgets.brake import Brake, BrakeLimits
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import Amount, CounterKind
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.changes import Position, find_last_seq, find_written_end
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_SELECT_RESERVATION = "SELECT total, subtotal, counters FROM budget_reservations WHERE request_id = ?"
#: Those that a record frees.  Few or none: most requests reserve from slices.
_SELECT_ANY = "SELECT 1 FROM budget_reservations WHERE state IN ('open', 'held') LIMIT 1"
_SELECT_OPEN = (
    "SELECT request_id FROM budget_reservations WHERE state IN ('open', 'held') AND request_id >= ? AND request_id <= ?"
)
_SELECT_AMOUNTS = "SELECT request_id, total, subtotal, counters FROM budget_reservations WHERE request_id IN"
_SELECT_UNSETTLED = (
    "SELECT request_id, state, counted_total, counted_subtotal FROM budget_reservations "
    "WHERE state IN ('pending', 'given_up') AND request_id IN"
)
_SET_STATE = "UPDATE budget_reservations SET state = ?, counted_total = ?, counted_subtotal = ? WHERE request_id = ?"
_FREE = "UPDATE budget_reservations SET total = '0', subtotal = '0', counters = '[]' WHERE request_id = ?"
_DELETE = "DELETE FROM budget_reservations WHERE request_id = ?"
_SELECT_ORPHANS = "SELECT request_id FROM budget_reservations WHERE state = 'open' AND writer = ?"
_SELECT_HELD = (
    "SELECT request_id, counters FROM budget_reservations WHERE state = 'held' AND request_id > ? "
    "ORDER BY request_id LIMIT ?"
)
_DELETE_COUNTERS = (
    f"DELETE FROM budget_counters WHERE ({KEY_COLUMNS}) IN "  # noqa: S608  # names of ours
    f"(SELECT {KEY_COLUMNS} FROM budget_counters WHERE period_end < ? LIMIT ?) RETURNING kind"
)

#: Request ids that one query names, and rows that one transaction deletes.
_MAX_IDS = 500

#: Settlements that one transaction counts, with some five statements for each.
_MAX_SETTLEMENTS = 100


#: Opens an empty SQLite file, and removes it at the end of the `with` block.
OpenScratch = Callable[[], AbstractContextManager[Database]]


class Folding:
    """Counts the records of one ledger, and the settlements of those whose usage came later."""

    def __init__(self, databases: tuple[Database, Database], dialect: Dialect, open_scratch: OpenScratch) -> None:
        """Count with the budgets' database and the ledger; `open_scratch` is for correct()."""
        self._budgets, self._ledger = databases
        self._open_scratch = open_scratch
        self._dialect = dialect
        #: Called with the seqs of records that were counted, and their groups.
        self.on_counted: Callable[[range, Sequence[RecordGroup]], None] = lambda _seqs, _groups: None
        #: True if the reservation of a record without a known cost stays until its period ends.
        self.hold = True
        #: The limits in force; the warnings that were claimed since take_warnings() was called.
        self.limits = BudgetLimits()
        self._warnings: list[BudgetWarning] = []
        self._unchecked: Iterator[list[BudgetWarning]] = iter(())
        #: The last held reservation that forget_ended() has looked at, "" after all of them.
        self._held_after = ""
        #: USD that projects may spend in a minute, by project id.
        self.brakes: Mapping[str, BrakeLimits] = {}
        self._has_new_trips = False

    def begin(self) -> None:
        """Begin to count at the end of the ledger, if nothing of this ledger was counted before."""
        begin_to_count(self._budgets, self._ledger, self._dialect.wait_for_writers)

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
            groups, reached = ledger_records.read_after(
                self._ledger, self._dialect, cursor, last_seq, by_second=bool(self.brakes)
            )
            self._count(groups, changes)
            self._end_reservations(groups, changes)
            if self.brakes and brakes.count(self._budgets, self.brakes, groups, datetime.now(UTC)):
                self._has_new_trips = True
            set_cursor(self._budgets, reached)
        self.on_counted(range(cursor + 1, reached + 1), groups)
        return reached < last_seq

    def fold_settlements(self) -> None:
        """Count the settlements of records whose usage was not known when they were counted."""
        while self.fold_settlement_batch():
            pass

    def fold_settlement_batch(self) -> bool:
        """Count some of the settlements that are not counted yet; return True if there are more."""
        if read_position(self._budgets).change >= settlements.find_last(self._ledger):
            return False  # most calls end here, without a transaction
        end = find_written_end(self._ledger, self._dialect.wait_for_writers).change
        with self._folding() as (cursor, changes):
            after = read_position(self._budgets).change
            found, reached = settlements.read_page(self._ledger, after, end, _MAX_SETTLEMENTS)
            # Those of a record that is not counted yet wait for it, and all that follow them.
            waiting = next((settlement.seq for settlement in found if settlement.record_seq > cursor), reached + 1)
            self._settle([settlement for settlement in found if settlement.seq < waiting], changes)
            reached = min(reached, waiting - 1)
            set_change_cursor(self._budgets, reached)
        return after < reached < end

    def register(self, wanted: Iterable[CounterKind], now: datetime) -> None:
        """Count these kinds from now on, and the ledger's records of their current periods.

        If the process dies meanwhile, the next one that registers them completes their counters.
        """
        kinds = list(dict.fromkeys(wanted))
        if not set(kinds) <= set(self.read_kinds()):
            with self._folding():
                counted_kinds.begin_kinds(self._budgets, kinds)
        incomplete = counted_kinds.list_incomplete(self._budgets, kinds)
        if incomplete:
            self._add_differences(incomplete, now)
            with self._budgets.transaction():
                counted_kinds.complete_kinds(self._budgets, incomplete)

    def correct(self, now: datetime) -> Decimal:
        """Compare the current counters with the ledger, correct them, and return the sum of the differences in USD.

        Nothing is locked while they do not differ.  Those whose records may have been pruned are left alone.
        """
        counted = self.read_kinds()
        incomplete = counted_kinds.list_incomplete(self._budgets, counted)
        return self._add_differences([kind for kind in counted if kind not in incomplete], now, leaves_pruned=True)

    def _add_differences(self, kinds: Sequence[CounterKind], now: datetime, *, leaves_pruned: bool = False) -> Decimal:
        """Add to counters what they lack of the ledger's records; return the sum of the differences in USD."""
        self.fold()
        self.fold_settlements()
        if leaves_pruned:
            kinds = ledger_sums.list_whole(self._ledger, kinds, now)
        total = Decimal(0)
        with self._open_scratch() as scratch:
            expected = ExpectedCounters(scratch)
            position = self._add_records(kinds, now, expected.add)
            compared = Compared(self._budgets, self._ledger, self._dialect, kinds, now)
            comparison = Comparison(compared, expected, position)
            for differing in comparison.find_differing():
                # Records can have been pruned since their sums were read.
                if leaves_pruned and ledger_sums.list_whole(self._ledger, kinds, now) != kinds:
                    break
                total += self._correct_page(comparison, differing)
        return total

    def _correct_page(self, comparison: Comparison, differing: Differing) -> Decimal:
        """Correct counters that still differ; return the sum of the differences in USD."""
        with self._folding():
            figures = comparison.correct(differing, read_position(self._budgets))
            write_settled(self._budgets, {key: expected for key, (_, expected) in figures.items()})
            raised = {key: expected for key, (settled, expected) in figures.items() if expected > settled}
            claimed = warnings.claim(self._budgets, self.limits, raised, datetime.now(UTC))
        self._warnings += claimed
        return sum((abs(expected - settled) for settled, expected in figures.values()), Decimal(0))

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

    def forget_ended(self, before: datetime) -> bool:
        """Delete some counters whose period ended before `before`, and held reservations that only they count.

        Returns:
            True if there may be more.
        """
        ended = format_time(before)
        held = self._budgets.fetch_rows(_SELECT_HELD, (self._held_after, _MAX_IDS))
        self._held_after = str(held[-1][0]) if len(held) == _MAX_IDS else ""
        forgotten = [str(request_id) for request_id, counters in held if _have_ended(str(counters), ended)]
        with self._folding():
            self._budgets.delete("budget_reservations", "request_id", forgotten)
            deleted = self._budgets.fetch_rows(_DELETE_COUNTERS, (ended, _MAX_IDS))
            warnings.forget_ended(self._budgets, ended)
            token_budgets.forget_expired(self._budgets, ended)
            brakes.forget_old(self._budgets, datetime.now(UTC))
        return len(deleted) == _MAX_IDS or bool(self._held_after)

    def check_warnings(self, now: datetime) -> None:
        """Claim the warnings of all counters: a limit has changed, or its time has ended."""
        self.begin_warning_check(now)
        while self.check_some_warnings():
            pass

    def begin_warning_check(self, now: datetime) -> None:
        """Begin to claim the warnings of all counters, from the first one on."""
        self._unchecked = warnings.claim_all(self._budgets, self._dialect.row_lock, self.limits, now)

    def check_some_warnings(self) -> bool:
        """Claim the warnings of some counters; return True if others follow."""
        claimed = next(self._unchecked, None)
        self._warnings += claimed or []
        return claimed is not None

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
        return counted_kinds.read_kinds(self._budgets)

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
                self._budgets.run(TRACK, (record.request_id, format_time(record.started_at), *values[:2]))
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

    def _settle(self, found: Sequence[Settlement], changes: CounterChanges) -> None:
        """Count settlements, at most a page; one without a row is counted already."""
        kinds = self.read_kinds()
        sql = f"{_SELECT_UNSETTLED} ({', '.join('?' * len(found))})"
        rows = self._budgets.fetch_rows(sql, [settlement.request_id for settlement in found]) if found else []
        counted = {str(request_id): (str(state), *figures) for request_id, state, *figures in rows}
        for settlement in found:
            state, total, subtotal = counted.get(settlement.request_id, ("", "0", "0"))
            if state == "pending" or (state == "given_up" and settlement.is_final):
                figures = {Amount.TOTAL: Decimal(str(total)), Amount.SUBTOTAL: Decimal(str(subtotal))}
                for kind in kinds:
                    for key in make_keys(kind, settlement.spender, settlement.started_at):
                        changes.settle(key, settlement.figures[kind.amount] - figures[kind.amount])
                self._end_pending(settlement, changes)
                counted[settlement.request_id] = ("" if settlement.is_final else "given_up", *_list_figures(settlement))

    def _end_pending(self, settlement: Settlement, changes: CounterChanges) -> None:
        """Free what a request has reserved, if its cost is known now."""
        if settlement.is_final:
            self._free(settlement.request_id, changes)
            return
        # Its figures are shown until there are final ones; an unknown cost stays reserved.
        self._budgets.run(_SET_STATE, ("given_up", *_list_figures(settlement), settlement.request_id))
        if settlement.basis is not Basis.UNSETTLED or not self.hold:
            self._free_counters(settlement.request_id, changes)
            self._budgets.run(_FREE, (settlement.request_id,))

    def _free(self, request_id: str, changes: CounterChanges) -> None:
        self._free_counters(request_id, changes)
        self._budgets.run(_DELETE, (request_id,))

    def _free_counters(self, request_id: str, changes: CounterChanges) -> None:
        for total, subtotal, keys in self._budgets.fetch_rows(_SELECT_RESERVATION, (request_id,)):
            changes.free(str(keys), Decimal(str(total)), Decimal(str(subtotal)))

    def _add_records(self, kinds: Sequence[CounterKind], now: datetime, add: Add) -> Position:
        """Add the amounts of the records that are counted, with their settlements; return how far they are counted.

        It can take seconds in a large ledger, so it locks nothing.
        """
        summed = ledger_sums.read_sums(self._ledger, kinds, now, add)
        self.fold()  # then the cursor is not before the last record of any sum
        position = read_position(self._budgets)
        for part in summed:
            seqs = (part.seq, position.record)
            add(ledger_sums.list_amounts(self._ledger, self._dialect, part.kinds, now, seqs))
        add(settlements.list_corrections(self._ledger, kinds, now, (0, position.change)))
        return position


def _format_amounts(record: CountedRecord) -> tuple[str, str]:
    return f"{record.total:f}", f"{record.subtotal:f}"


def _have_ended(counters: str, before: str) -> bool:
    """Return True if the periods of all of these counters, in their text form, ended before a time."""
    return all(key.period_end is not None and key.period_end < before for key in decode_keys(counters))


def _list_figures(settlement: Settlement) -> tuple[str, str]:
    return f"{settlement.figures[Amount.TOTAL]:f}", f"{settlement.figures[Amount.SUBTOTAL]:f}"
