"""Keeps requests within the budgets of their project: reserves before they are sent, and refuses those that do not fit.

    admit_request ──> reserve ──> intent ──> provider ──> record ──> the ledger's record frees the reservation
                         │          └─ fault ──> release
                         └─ no money left ──> 402, or 429 while only reservations are in the way

The counters and reservations of all processes are in budgets/.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

from tornado_proxy.domain.budget import (
    Budget,
    BudgetRefusal,
    CounterPlan,
    Period,
    Reservation,
    Scope,
    Spender,
)
from tornado_proxy.domain.errors import BadRequest, BudgetExceeded, BudgetReserved, LedgerUnavailable, RequestError
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint
from tornado_proxy.snapshot import Snapshot

#: Seconds for which a refusal answers further requests of the same spender without a look at the counters: clients
#: repeat a refused request up to twelve times.
_REFUSAL_KEPT_S = 1.0

#: Refusals that are kept; the oldest is dropped first.
_MAX_KEPT_REFUSALS = 4096

_CENT = Decimal("0.01")


class Keeper(Protocol):
    """The counters and reservations (budgets/keeper.py)."""

    async def open(self, plan: CounterPlan) -> None:
        """Open the counters and count what a configuration needs; raise LedgerUnavailable if that fails."""

    async def follow(self, plan: CounterPlan) -> None:
        """Count what another configuration needs from now on."""

    async def reserve(self, reservation: Reservation) -> BudgetRefusal | None:
        """Reserve what a request can cost, or return the refusal of a budget."""

    async def check(self, reservation: Reservation) -> BudgetRefusal | None:
        """Return the refusal that reserve() would return; reserve nothing."""

    def release(self, request_id: str) -> None:
        """Free the reservation of a request that was not sent."""

    async def close(self) -> None:
        """Close the counters."""


class BudgetGate:
    """The budgets of all projects."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._is_open = False
        self._refusals: OrderedDict[tuple[Spender, tuple[Budget, ...]], tuple[float, RequestError]] = OrderedDict()

    async def follow(self, snapshot: Snapshot) -> None:
        """Count what the budgets of a configuration need; without budgets nothing is opened.

        Raises:
            LedgerUnavailable: the counters cannot be opened.
        """
        plan = snapshot.counter_plan()
        self._refusals.clear()
        if self._is_open:
            await self._keeper.follow(plan)
        elif plan.kinds:
            await self._keeper.open(plan)
            self._is_open = True

    async def reserve(self, context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, work: Work) -> None:
        """Reserve the most that a request can cost; release() frees it if the request is not sent.

        Raises:
            BudgetExceeded: a budget is spent.
            BudgetReserved: other requests have reserved the rest of a budget.
            BadRequest: nothing says what the request can cost at most.
            LedgerUnavailable: the counters cannot be written.
        """
        reservation = self._make_reservation(context, tariff, facts, work)
        if reservation is None:
            return
        key = (reservation.spender, reservation.budgets)
        kept = self._refusals.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            raise kept[1]
        refusal = await self._keeper.reserve(reservation)
        if refusal is not None:
            raise self._keep(key, refusal, context)

    async def reserve_running(
        self, context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, work: Work
    ) -> RequestError | None:
        """Reserve for work that the provider has started on its own; return the error if a budget is spent."""
        try:
            reservation = self._make_reservation(context, tariff, facts, work)
            if reservation is None:
                return None
            refusal = await self._keeper.reserve(replace(reservation, forced=True))
        except RequestError as error:
            return error
        return None if refusal is None else _make_error(refusal, context)

    async def check(self, context: RequestContext[Endpoint]) -> None:
        """Check that a budget has money left, before a session opens.

        Raises:
            BudgetExceeded: a budget is spent.
            LedgerUnavailable: the counters cannot be read.
        """
        budgets = context.snapshot.find_budgets(context.project)
        if not budgets:
            return
        spender, now = _spender_of(context), datetime.now(UTC)
        refusal = await self._keeper.check(Reservation("", spender, budgets, Decimal(0), Decimal(0), now))
        if refusal is not None and refusal.exhausted:
            raise _make_error(refusal, context)

    def release(self, request_id: str) -> None:
        """Free what a request has reserved that is not sent."""
        if self._is_open:
            self._keeper.release(request_id)

    async def close(self) -> None:
        """Close the counters."""
        if self._is_open:
            await self._keeper.close()

    def _make_reservation(
        self, context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, work: Work
    ) -> Reservation | None:
        """Return the reservation of a request, None if it needs none."""
        budgets = context.snapshot.find_budgets(context.project)
        endpoint = context.endpoint
        if not budgets or (isinstance(endpoint, HttpEndpoint) and not endpoint.charged):
            return None
        if not self._is_open:
            raise LedgerUnavailable("the budgets of the new configuration are not counted yet")
        request_id, at = work
        bound = context.snapshot.cost_bounds.bound(tariff, endpoint.priced_as or endpoint.path, facts, at)
        if bound is None:
            raise BadRequest(
                f"the price file states no limits of {facts.model}, so its cost has no bound and no budget can admit "
                "it; the operator can add `limits` to the model",
                param="model",
            )
        return Reservation(request_id, _spender_of(context), budgets, bound.total, bound.subtotal, at)

    def _keep(
        self, key: tuple[Spender, tuple[Budget, ...]], refusal: BudgetRefusal, context: RequestContext[Endpoint]
    ) -> RequestError:
        error = _make_error(refusal, context)
        # Whatever a further request can cost, a limit that is reached refuses it.
        if refusal.counter.settled >= refusal.budget.limit:
            self._refusals[key] = (time.monotonic() + _REFUSAL_KEPT_S, error)
            if len(self._refusals) > _MAX_KEPT_REFUSALS:
                self._refusals.popitem(last=False)
        return error


#: The id of a request and the time when it began.
Work = tuple[str, datetime]


def _spender_of(context: RequestContext[Endpoint]) -> Spender:
    caller = context.caller
    return Spender(
        caller.project_id,
        caller.participant,
        caller.user,
        caller.issuer,
        caller.credential_id,
        tuple(context.labels.items()),
    )


def _make_error(refusal: BudgetRefusal, context: RequestContext[Endpoint]) -> RequestError:
    budget, counter = refusal.budget, refusal.counter
    name = f"{_describe_owner(budget, counter.subject, context)} {_describe_period(budget.kind.period)}"
    ask = f"ask an admin of project {context.project.name} to raise it"
    left = f"{_usd(budget.limit - counter.settled)} of {_usd(budget.limit)}"
    if not refusal.exhausted:
        return BudgetReserved(
            f"{name} has {left} USD left, and requests under way can cost {_usd(counter.reserved)} USD; "
            "send the request again in a moment"
        )
    end = counter.interval.end
    until = "" if end is None else f" until {end:%Y-%m-%dT%H:%M:%SZ}"
    retry_after_s = None if end is None else max(1, math.ceil((end - datetime.now(UTC)).total_seconds()))
    if counter.settled < budget.limit:
        return BudgetExceeded(
            f"{name} has {left} USD left{until}, and this request can cost {_usd(refusal.bound)} USD; "
            f"set a lower limit of output tokens, or {ask}",
            retry_after_s,
        )
    return BudgetExceeded(
        f"{name} is spent: {_usd(counter.settled)} of {_usd(budget.limit)} USD{until}; {ask}", retry_after_s
    )


def _describe_owner(budget: Budget, subject: str, context: RequestContext[Endpoint]) -> str:
    match budget.kind.scope:
        case Scope.PROJECT:
            return f"the budget of project {context.project.name}"
        case Scope.LABEL:
            return f"the budget of {budget.kind.label} {subject}"
        case Scope.ACCESS_KEY:
            return f"the budget of access key {subject}"
        case Scope.PARTICIPANT | Scope.USER:
            return f"the budget of {subject}"


def _describe_period(period: Period) -> str:
    return "in total" if period is Period.TOTAL else f"for this {period}"


def _usd(amount: Decimal) -> str:
    """Return an amount for people: whole cents, or six digits if it is smaller."""
    return f"{amount:.2f}" if amount == 0 or abs(amount) >= _CENT else f"{amount:.6f}"
