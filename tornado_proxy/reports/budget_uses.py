"""How much of each budget is spent, for metrics: a bounded number of figures, without the names of callers.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, CounterState

#: Budgets that are shown, those first of which most is spent.
MAX_USES = 1000


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A budget of a project; of those per participant and the like, that of the subject who has used most of it.

    Attributes:
        settled: The spend of the current period, USD.
        limit: The limit in force, USD.
    """

    project_id: str
    kind: CounterKind
    settled: Decimal
    limit: Decimal

    @property
    def ratio(self) -> float:
        """The part of the limit that is spent; 1 of a limit of 0, which admits nothing."""
        return float(self.settled / self.limit) if self.limit else 1.0


def find_uses(limits: BudgetLimits, counters: Iterable[CounterState], now: datetime) -> list[BudgetUse]:
    """Return the budgets of all projects that are not lifted, at most MAX_USES."""
    found: dict[tuple[str, CounterKind], BudgetUse] = {}
    for state in (*_list_unused(limits, now), *counters):
        end = state.interval.end
        is_current = state.interval.begin <= now and (end is None or now < end)
        limit = limits.find_limit(state.project_id, state.kind, state.subject, now) if is_current else None
        if limit is None:
            continue
        use, key = BudgetUse(state.project_id, state.kind, state.settled, limit), (state.project_id, state.kind)
        if key not in found or use.ratio >= found[key].ratio:
            found[key] = use
    return sorted(found.values(), key=lambda use: use.ratio, reverse=True)[:MAX_USES]


def _list_unused(limits: BudgetLimits, now: datetime) -> Iterator[CounterState]:
    """Yield a counter of each budget with nothing spent."""
    for project_id, budgets in limits.budgets.items():
        for kind in dict.fromkeys(budget.kind for budget in budgets):
            interval = find_interval(kind.period, kind.start, now)
            yield CounterState(kind, project_id, "", interval, Decimal(0), Decimal(0))
