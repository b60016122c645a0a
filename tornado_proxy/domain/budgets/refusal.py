"""Refusals as values: the budget or limit that does not admit a request, and its state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterState
from tornado_proxy.domain.budgets.rate_limits import RateRefusal


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """A budget does not admit a request that can cost `bound` USD."""

    budget: Budget
    counter: CounterState
    bound: Decimal

    @property
    def exhausted(self) -> bool:
        """True if the money is spent; False if only reservations are in the way, which end soon."""
        return self._exceeds(self.budget.limit)

    @property
    def ends_at(self) -> datetime | None:
        """When there is money again, aware UTC: when the period ends, or before, when a higher limit is in force.

        None if the period has no end, and no higher limit has room for the request.
        """
        budget, end = self.budget, self.counter.interval.end
        if budget.lowered_until is None or budget.limit_then is None or self._exceeds(budget.limit_then):
            return end
        return budget.lowered_until if end is None else min(end, budget.lowered_until)

    def _exceeds(self, limit: Decimal) -> bool:
        settled = self.counter.settled
        return settled >= limit or (self.budget.strict and settled + self.bound > limit)


#: A budget or a limit does not admit a request.
Refusal = BudgetRefusal | RateRefusal
