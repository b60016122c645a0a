"""The protocol of the counters and reservations, which budgets/keeper.py implements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.budgets.rate_limits import RateUnit
from tornado_proxy.domain.budgets.refusal import Refusal
from tornado_proxy.domain.budgets.reservation import Reservation
from tornado_proxy.domain.budgets.warning import BudgetWarning

_Result = TypeVar("_Result")


class Keeper(Protocol):
    """The counters and reservations (budgets/keeper.py).

    Attributes:
        slices: Those of this process; a request without claims on limits can reserve from them directly.
    """

    slices: Slices

    async def open(self, plan: CounterPlan) -> None:
        """Open the counters of a configuration; raise LedgerUnavailable if that fails."""

    async def follow(self, plan: CounterPlan) -> None:
        """Count what another configuration needs from now on."""

    def watch(self, limits: BudgetLimits) -> None:
        """Warn of these limits from now on."""

    def take(self, reservation: Reservation) -> bool:
        """Take units of limits, and reserve from slices; return False if this process has leased too little."""

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        """Reserve the most that a request can cost, and its units of limits, or return the refusal of one."""

    async def check(self, reservation: Reservation) -> Refusal | None:
        """Return the refusal that reserve() would return; reserve nothing."""

    def release(self, request_id: str) -> None:
        """Free the reservation of a request that was not sent."""

    def end(self, request_id: str, used: Mapping[RateUnit, int]) -> None:
        """Give back the units of limits that a request has taken and not used."""

    async def read(self, query: Callable[[BudgetStore], _Result]) -> _Result:
        """Return the result of a query; raise LedgerUnavailable if that fails."""

    async def read_apart(self, query: Callable[[BudgetStore], _Result]) -> _Result:
        """Return the result of a query of many counters; raise LedgerUnavailable if that fails."""

    async def forget_brake(self, brake_id: str) -> None:
        """Forget a limit of USD per minute whose stop was made."""

    async def exists(self) -> bool:
        """Return True if any process has counted budgets of the ledger; raise LedgerUnavailable if that fails."""

    async def forget_alert(self, warning: BudgetWarning) -> None:
        """Forget a warning whose alert is stored."""

    async def close(self) -> None:
        """Close the counters."""
