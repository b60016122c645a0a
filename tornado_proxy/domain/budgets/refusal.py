"""Refusals as values: the budget or limit that does not admit a request, and its state."""

from __future__ import annotations

from dataclasses import dataclass
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
        settled, limit = self.counter.settled, self.budget.limit
        return settled >= limit or (self.budget.strict and settled + self.bound > limit)


#: A budget or a limit does not admit a request.
Refusal = BudgetRefusal | RateRefusal
