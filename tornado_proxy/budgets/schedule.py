"""Says when the thread of the budgets counts records, looks for limits that were passed, and cleans up."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.budgets.warning import BudgetWarning

#: Seconds between two counts of new records while requests are under way, and while none is.
_BUSY_FOLD_S, _IDLE_FOLD_S = 0.1, 1.0

#: The same while all requests under way have reserved from slices; the second while all counters have much left.
_SLICED_FOLD_S, _FAR_FOLD_S = 0.25, 1.0

#: Seconds between two looks at the slices, which is how soon a recall is answered; the second while all counters have
#: much left, and no limit is leased.
_RECALL_S, _FAR_RECALL_S = 0.25, 0.5

#: Seconds between two looks for settlements, at least.  They wait for the next turn, because each turn wakes the thread
#: up, and takes the interpreter's lock from the event loop.
_SETTLEMENTS_S = 1.0

#: Seconds between two looks for limits that another process has found to be passed, and could not act on.
_BRAKES_S = 1.0

#: Seconds between two looks for warnings whose alert no process has stored, and how old they are at least.
_ALERTS_S = 10.0

_CLEANUP_S = 60.0

#: Seconds between two searches for processes that have died.
_DEAD_SEARCH_S = 1.0

#: How long counters of ended periods are kept: late records are counted in them.
_ENDED_KEPT = timedelta(days=2)


class Schedule:
    """The schedule of one thread."""

    def __init__(self) -> None:
        self._fold_at = self._settlements_at = self._cleanup_at = self._brakes_at = self._alerts_at = (
            self._recall_at
        ) = 0.0
        self._dead_search_at = self._forget_at = 0.0
        #: True while counters are left to be checked for warnings, and settlements to be counted.
        self._is_checking = self._is_settling = False
        self._is_lease_due = False

    def wait_s(self) -> float:
        """Return the seconds that the thread may wait for items."""
        if self._is_checking or self._is_settling:
            return 0.0
        due = min(self._fold_at, self._forget_at, self._recall_at)
        return max(0.0, due - time.monotonic())

    def expect_records(self) -> None:
        """Count records soon: requests are under way."""
        self._fold_at = min(self._fold_at, time.monotonic() + _BUSY_FOLD_S)

    def expect_leases(self) -> None:
        """Lease soon: requests have found too little in a slice."""
        self._is_lease_due = True

    def run(self, store: BudgetStore) -> None:
        """Do the work that is due."""
        now = time.monotonic()
        if now >= self._fold_at:
            is_behind = store.folding.fold_batch()
            self._sync(store, now)  # at the same time: the thread wakes up less often
            self._fold_at = now + (0 if is_behind else self._find_pause(store))
        elif self._is_lease_due or now >= self._recall_at:
            self._sync(store, now)
        if now >= self._settlements_at or self._is_settling:
            self._is_settling = store.folding.fold_settlement_batch()
            self._settlements_at = now + _SETTLEMENTS_S
        if now >= self._dead_search_at:
            store.free_dead()
            self._dead_search_at = now + _DEAD_SEARCH_S
        if now >= self._cleanup_at:
            if not self._is_checking:
                store.folding.begin_warning_check(datetime.now(UTC))
            store.free_streams()
            store.leasing.forget_held()
            self._cleanup_at = now + _CLEANUP_S
        if now >= self._forget_at:
            is_behind = store.folding.forget_ended(datetime.now(UTC) - _ENDED_KEPT)
            self._forget_at = now + (0 if is_behind else _CLEANUP_S)
        # There can be a million counters: some in each turn.
        self._is_checking = store.folding.check_some_warnings()

    def _sync(self, store: BudgetStore, now: float) -> None:
        if self._is_lease_due or now >= self._fold_at:
            store.sync_leases()
        else:
            store.answer_recalls()
        self._is_lease_due = False
        self._recall_at = now + _find_recall_pause(store)

    def _find_pause(self, store: BudgetStore) -> float:
        if store.has_open():
            return _BUSY_FOLD_S
        if not store.has_slices:
            return _IDLE_FOLD_S
        return _FAR_FOLD_S if store.is_far else _SLICED_FOLD_S

    def find_untold(self, store: BudgetStore) -> list[BudgetWarning]:
        """Return the warnings whose process has died, or could not store the alert yet."""
        now = time.monotonic()
        if now < self._alerts_at:
            return []
        self._alerts_at = now + _ALERTS_S
        return store.folding.list_untold(datetime.now(UTC) - timedelta(seconds=_ALERTS_S))

    def find_brakes(self, store: BudgetStore) -> list[Brake]:
        """Return the limits of USD per minute that were passed: at once if this process finds it, else each second."""
        now = time.monotonic()
        if not store.folding.take_new_trips() and (not store.folding.brakes or now < self._brakes_at):
            return []
        self._brakes_at = now + _BRAKES_S
        return store.folding.list_trips()


def _find_recall_pause(store: BudgetStore) -> float:
    if not store.has_slices:
        return _IDLE_FOLD_S
    return _FAR_RECALL_S if store.is_far and not store.has_rate_slices else _RECALL_S
