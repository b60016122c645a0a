"""Keeps requests within the budgets and limits of their project: reserves before they are sent, or refuses them.

    admit_request ──> reserve ──> intent ──> provider ──> record ──> the ledger's record frees the reservation;
                         │          └─ fault ──> release             request_ended gives tokens and streams back
                         ├─ no money left ──> 402, or 429 while only reservations are in the way
                         └─ a limit is reached ──> 429

    session ──> open_stream ──> close_stream at its end

The counters and reservations of all processes are in budgets/.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from msgspec import structs

from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, CounterPlan
from tornado_proxy.domain.budgets.rate_limits import RateRefusal, RateUnit
from tornado_proxy.domain.budgets.refusal import BudgetRefusal
from tornado_proxy.domain.budgets.reservation import Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.domain.errors import LedgerUnavailable, RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.budgets.keeper import Keeper
from tornado_proxy.gateway.budgets.rate_limits import (
    find_used,
    make_limit_error,
    require_fitting_tokens,
)
from tornado_proxy.gateway.budgets.refusals import make_budget_error
from tornado_proxy.gateway.budgets.reports import read_own_rows, read_rows, read_uses
from tornado_proxy.gateway.budgets.reservations import (
    make_check,
    make_reservation,
    make_stream_reservation,
)
from tornado_proxy.gateway.budgets.shared_bounds import find_shared
from tornado_proxy.gateway.budgets.token_budgets import StatedBudgets
from tornado_proxy.gateway.context import RequestContext, RequestStart
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Endpoint
from tornado_proxy.reports.budget_uses import BudgetUse
from tornado_proxy.reports.budgets import BudgetFigures, BudgetRow, list_rows
from tornado_proxy.snapshot import Snapshot

#: Seconds for which a refusal answers further requests of the same spender without a look at the counters: clients
#: repeat a refused request up to twelve times.
_REFUSAL_KEPT_S = 1.0

#: Refusals that are kept; the oldest is dropped first.
_MAX_KEPT_REFUSALS = 4096


class BudgetGate:
    """The budgets of all projects."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper, self._slices = keeper, keeper.slices
        self._is_open = False
        self._plan = CounterPlan()
        self._limits = BudgetLimits()
        #: True since a token with a budget of its own was first used: until then its kind of counter is not counted.
        self._counts_tokens = False
        self._stated = StatedBudgets(keeper)
        self._following = asyncio.Lock()
        #: The requests and sessions under way that have taken something of limits.
        self._limited: set[str] = set()
        self._refusals: OrderedDict[tuple[Spender, tuple[Budget, ...]], tuple[float, RequestError]] = OrderedDict()

    async def follow(self, snapshot: Snapshot) -> None:
        """Open the counters of a configuration's budgets; without budgets and limits nothing is opened.

        Raises:
            LedgerUnavailable: the counters cannot be opened.
        """
        async with self._following:
            self._plan = snapshot.counter_plan()
            self._refusals.clear()
            await self._follow(counts_tokens=self._counts_tokens)

    async def _follow(self, *, counts_tokens: bool) -> None:
        plan = self._plan
        if counts_tokens:
            plan = replace(plan, kinds=tuple(dict.fromkeys((*plan.kinds, TOKEN_TOTAL))))
        if self._is_open:
            await self._keeper.follow(plan)
        elif plan:
            await self._keeper.open(plan)
            self._is_open = True

    async def _count_tokens(self) -> None:
        """Count what tokens spend: a caller's token states a budget."""
        if self._counts_tokens:
            return
        async with self._following:
            if not self._counts_tokens:
                await self._follow(counts_tokens=True)
                self._counts_tokens = True
                self._keeper.watch(self._limits)

    def watch(self, limits: BudgetLimits) -> None:
        """Warn when counters reach 50, 80 and 100 % of these limits, which are in force from now on."""
        self._limits = limits
        if self._is_open:
            self._keeper.watch(limits)

    def reserve(
        self, context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, start: RequestStart
    ) -> StatedBound | Awaitable[StatedBound | None] | None:
        """Reserve the most that a request can cost; release() frees it if the request is not sent.

        Returns:
            The bound that is reserved, None without a budget; an awaitable if the database of the budgets must be
            asked.

        Raises:
            BudgetExceeded: a budget is spent.
            BudgetReserved: other requests have reserved the rest of a budget.
            LimitReached: a limit of requests or tokens per minute, or of streams, is reached.
            BadRequest: nothing limits the cost of the request, or the most that it can cost is more than a limit.
            LedgerUnavailable: the counters cannot be written.
        """
        shared = find_shared(context, tariff, facts, start, self._slices)
        # Nearly all requests with a budget end here.  Before the counters are open no slice has anything.
        if shared is not None and self._slices.take_sliced(start.request_id, shared.sliced):
            return shared.stated
        reservation = make_reservation(context, tariff, facts, start)
        if reservation is None:
            return None
        if reservation.claims:
            require_fitting_tokens(reservation.claims, context)
        may_take = self._is_open and shared is None and not context.caller.token_budgets
        if may_take and self._keeper.take(reservation):
            self._note_claims(reservation)
            return _find_reserved(reservation)
        return self._reserve(reservation, context)

    async def reserve_again(
        self, context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, start: RequestStart
    ) -> StatedBound | None:
        """Reserve for a request whose facts have changed.  Returns and raises as reserve()."""
        self.release(start.request_id)
        reserved = self.reserve(context, tariff, facts, start)
        return reserved if reserved is None or isinstance(reserved, StatedBound) else await reserved

    async def _reserve(self, reservation: Reservation, context: RequestContext[Endpoint]) -> StatedBound | None:
        """Reserve in the database; from slices if the caller's token states a budget, which is counted first."""
        states_budget = bool(context.caller.token_budgets)
        if states_budget:
            await self._count_tokens()
        self._require_open()
        if not states_budget or not self._keeper.take(reservation):
            await self._ask(reservation, context)
        self._note_claims(reservation)
        if reservation.budgeted.budgets:
            self._stated.note(context.caller)
        return _find_reserved(reservation)

    async def _ask(self, reservation: Reservation, context: RequestContext[Endpoint]) -> None:
        key = (reservation.budgeted.spender, reservation.budgeted.budgets)
        kept = self._refusals.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            raise kept[1]
        refusal = await self._keeper.reserve(reservation)
        match refusal:
            case BudgetRefusal():
                raise self._keep(key, refusal, context)
            case RateRefusal():
                raise make_limit_error(refusal, context)

    async def reserve_running(
        self, context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, intent: RequestIntent
    ) -> tuple[RequestIntent, RequestError | None]:
        """Reserve for work that the provider has started on its own.

        Returns:
            The intent with the bound that is reserved, and the error if a budget is spent.
        """
        start = RequestStart(intent.request_id, intent.started_at, intent.attribution)
        try:
            if context.caller.token_budgets:
                await self._count_tokens()
            reservation = make_reservation(context, tariff, facts, start)
            if reservation is None:
                return intent, None
            self._require_open()
            refusal = await self._keeper.reserve(structs.replace(reservation, forced=True))
            self._note_claims(reservation)
            self._stated.note(context.caller)
        except RequestError as error:
            return intent, error
        intent = structs.replace(intent, bound=_find_reserved(reservation))
        # A limit, or a reservation in the way, has room again in a moment.
        if isinstance(refusal, BudgetRefusal) and refusal.exhausted:
            return intent, make_budget_error(refusal, context)
        return intent, None

    async def check(self, context: RequestContext[Endpoint]) -> None:
        """Check that a budget has money left, before a session opens.

        Raises:
            BudgetExceeded: a budget is spent.
            LedgerUnavailable: the counters cannot be read.
        """
        reservation = make_check(context, datetime.now(UTC))
        if not reservation.budgeted.budgets:
            return
        if context.caller.token_budgets:
            await self._count_tokens()
        refusal = await self._keeper.check(reservation)
        if isinstance(refusal, BudgetRefusal) and refusal.exhausted:
            raise make_budget_error(refusal, context)

    async def forget_brake(self, brake_id: str) -> None:
        """Forget a limit of USD per minute whose stop was made.

        Raises:
            LedgerUnavailable: the counters cannot be written.
        """
        await self._keeper.forget_brake(brake_id)

    async def forget_alert(self, warning: BudgetWarning) -> None:
        """Forget a warning whose alert is stored; it is reported again if that fails."""
        with contextlib.suppress(LedgerUnavailable):
            await self._keeper.forget_alert(warning)

    async def read_rows(
        self, limits: BudgetLimits, project_id: str | None = None, caller: Caller | None = None
    ) -> list[BudgetRow]:
        """Return the budgets of all projects, of one, or those that concern a caller alone.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        if not self._is_open and not await self._open_counted():
            return list_rows(limits, BudgetFigures(), datetime.now(UTC), project_id) if caller is None else []
        if caller is not None:
            return await self._keeper.read_apart(lambda store: read_own_rows(store, limits, caller))
        return await self._keeper.read_apart(lambda store: read_rows(store, limits, project_id))

    async def read_stated(self, limits: BudgetLimits) -> BudgetLimits:
        """Return `limits` with the budgets that tokens state.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        if not self._is_open and not await self._open_counted():
            return limits
        return limits.state(await self._keeper.read(lambda store: store.list_stated(datetime.now(UTC))))

    async def _open_counted(self) -> bool:
        """Open the counters if another process has counted: without budgets of its own, for a token that states one."""
        async with self._following:
            if not self._is_open and await self._keeper.exists():
                await self._keeper.open(self._plan)
                self._is_open = True
                self._keeper.watch(self._limits)
        return self._is_open

    async def find_uses(self, limits: BudgetLimits) -> list[BudgetUse]:
        """Return how much of the budgets is spent.

        Raises:
            LedgerUnavailable: the counters cannot be read.
        """
        if not self._is_open:
            return []
        return await self._keeper.read_apart(lambda store: read_uses(store, limits))

    def release(self, request_id: str) -> None:
        """Free the reservation of a request that is not sent."""
        self._limited.discard(request_id)
        if self._is_open:
            self._keeper.release(request_id)

    async def open_stream(self, context: RequestContext[Endpoint], session_id: str) -> None:
        """Count a session among the streams; close_stream() ends that.

        Raises:
            LimitReached: the project or the caller has as many streams as it may.
            LedgerUnavailable: the counters cannot be written.
        """
        reservation = make_stream_reservation(context, session_id, datetime.now(UTC))
        if not reservation.claims:
            return
        self._require_open()
        refusal = await self._keeper.reserve(reservation)
        if isinstance(refusal, RateRefusal):
            raise make_limit_error(refusal, context)
        self._note_claims(reservation)

    def close_stream(self, session_id: str) -> None:
        """Stop counting a session; no effect on one that is not counted."""
        self._end(session_id, {RateUnit.STREAMS: 0})

    def request_ended(self, record: RequestRecord) -> None:
        """Give back the units of limits that a request has taken and not used."""
        request_id = record.intent.request_id
        if request_id in self._limited:
            self._end(request_id, find_used(record))

    def _end(self, request_id: str, used: Mapping[RateUnit, int]) -> None:
        if request_id in self._limited:
            self._limited.discard(request_id)
            self._keeper.end(request_id, used)

    def _note_claims(self, reservation: Reservation) -> None:
        if reservation.claims:
            self._limited.add(reservation.request_id)

    def _require_open(self) -> None:
        if not self._is_open:
            raise LedgerUnavailable("the budgets and limits of the new configuration are not counted yet")

    async def close(self) -> None:
        """Close the counters."""
        if self._is_open:
            await self._keeper.close()

    def _keep(
        self, key: tuple[Spender, tuple[Budget, ...]], refusal: BudgetRefusal, context: RequestContext[Endpoint]
    ) -> RequestError:
        error = make_budget_error(refusal, context)
        # Whatever a further request can cost, a limit that is reached refuses it until its period ends.
        if refusal.counter.settled >= refusal.budget.limit:
            kept_s = _REFUSAL_KEPT_S
            if refusal.ends_at is not None:
                kept_s = min(kept_s, (refusal.ends_at - datetime.now(UTC)).total_seconds())
            self._refusals[key] = (time.monotonic() + kept_s, error)
            if len(self._refusals) > _MAX_KEPT_REFUSALS:
                self._refusals.popitem(last=False)
        return error


def _find_reserved(reservation: Reservation) -> StatedBound | None:
    """Return the bound that budgets have reserved; None if only limits apply."""
    return reservation.bound.state() if reservation.budgeted.budgets else None
