"""Reservations as values: the most that a request can cost, and the budgets that must have room for it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import Amount
from tornado_proxy.domain.budgets.rate_limits import RateClaim
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import CostBound


class BudgetedSpender(msgspec.Struct, frozen=True, eq=False):
    """A spender, and the budgets of its requests: one object for all of them, by which more is found without a hash."""

    spender: Spender
    budgets: tuple[Budget, ...] = ()


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """The reservation of a request before it is sent.

    Attributes:
        budgeted: Whom the request is charged to, and the budgets that must have room for it.
        bound: The most that it can cost.
        at: When the request began, aware UTC; it decides the period.
        forced: True if the work runs already: it is reserved although a budget or limit would not admit it.
        claims: The units that it takes of the limits of its project and caller.
    """

    request_id: str
    budgeted: BudgetedSpender
    bound: CostBound
    at: datetime
    forced: bool = False
    claims: tuple[RateClaim, ...] = ()

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter reserves."""
        return amount.choose(self.bound.total, self.bound.subtotal)
