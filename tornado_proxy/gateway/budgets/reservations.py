"""Makes the reservations of requests: whom they are charged to, their budgets, the most that they can cost.

The facts that all requests of a caller share are found once for each snapshot.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

import msgspec
from msgspec import structs

from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateUnit
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import NO_BOUND, CostBound
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.admission.stops import find_agent_session
from tornado_proxy.gateway.budgets.rate_limits import list_claims
from tornado_proxy.gateway.context import RequestContext, RequestStart
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Endpoint

#: Callers, with their agent sessions, whose shared facts a snapshot keeps.  Clients choose the sessions.
_MAX_KEPT = 4096


def make_reservation(
    context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, start: RequestStart
) -> Reservation | None:
    """Return the reservation of a request, None if it needs none.

    Raises:
        BadRequest: nothing limits the cost of the request.
    """
    if not context.is_limited:
        return None
    endpoint, snapshot, at = context.endpoint, context.snapshot, start.started_at
    spending = find_spending(context, start.attribution.agent_session)
    budgeted, bound = spending.budgeted, NO_BOUND
    if not endpoint.charged:
        budgeted = BudgetedSpender(budgeted.spender)  # it costs nothing
    else:
        if snapshot.budget_limits.changes:
            budgeted = _find_budgets(context, spending, at)
        if budgeted.budgets or spending.limits_tokens:
            most = snapshot.cost_bounds.bound(tariff, endpoint.priced_as or endpoint.path, facts, at)
            if most is None:
                raise _make_unbounded_error(facts)
            bound = most
    claims = _list_claims(endpoint, spending.limits, facts, bound) if spending.limits else ()
    return Reservation(start.request_id, budgeted, bound, at, claims=claims) if budgeted.budgets or claims else None


def make_check(context: RequestContext[Endpoint], now: datetime) -> Reservation:
    """Return the reservation of nothing, with which a session finds out whether its budgets are spent."""
    spending = find_spending(context, find_agent_session(context))
    return Reservation("", _find_budgets(context, spending, now), NO_BOUND, now)


def make_stream_reservation(context: RequestContext[Endpoint], session_id: str, now: datetime) -> Reservation:
    """Return the reservation of a session, which is one of the streams of its project and caller."""
    spending = find_spending(context, None)  # limits are per project and per participant
    claims = tuple(limit for limit in spending.limits if limit.unit is RateUnit.STREAMS)
    return Reservation(session_id, BudgetedSpender(spending.budgeted.spender), NO_BOUND, now, claims=claims)


def _list_claims(
    endpoint: Endpoint, limits: tuple[RateClaim, ...], facts: RequestFacts, bound: CostBound
) -> tuple[RateClaim, ...]:
    """Return the claims of a request on `limits`, which state one unit of each."""
    claims = []
    for limit in limits:
        match limit.unit:
            case RateUnit.STREAMS:
                is_claimed = facts.stream
            case RateUnit.REQUESTS:
                is_claimed = endpoint.charged
            case RateUnit.TOKENS:
                is_claimed = endpoint.charged and bound.tokens > 0
                limit = structs.replace(limit, units=bound.tokens)
            case _:
                assert_never(limit.unit)
        if is_claimed:
            claims.append(limit)
    return tuple(claims)


def _make_unbounded_error(facts: RequestFacts) -> BadRequest:
    other = "" if facts.work.names_models else ", or of a model that the provider can choose for it"
    return BadRequest(
        f"the price file states no limits of {facts.model}{other}, so its cost has no bound and no budget or limit can "
        "admit it; the operator can add `limits` to the model",
        param="model",
    )


class Spending(msgspec.Struct):
    """The facts that all requests of a caller in one agent session share.

    Attributes:
        budgeted: Whom they are charged to, and the budgets of the last one, with the limits that were in force then.
        limits: A claim of one unit on each limit of the project and the caller.
        limits_tokens: True if a limit of the project is one of tokens.
        is_known: True if the caller has sent a request before; those of session keys are new each time.
    """

    caller: Caller
    budgeted: BudgetedSpender
    limits: tuple[RateClaim, ...]
    limits_tokens: bool
    is_known: bool = False


def _find_budgets(context: RequestContext[Endpoint], spending: Spending, at: datetime) -> BudgetedSpender:
    """Return the budgets of a caller's requests, with the limits in force, and those that its token states."""
    snapshot, spender = context.snapshot, spending.budgeted.spender
    if snapshot.budget_limits.changes.get(spender.project_id):
        configured = (*snapshot.find_budgets(context.project), *context.caller.token_budgets)
        budgets = snapshot.budget_limits.apply_changes(configured, spender, at)
        # Else the same object, by which slices find the claims of the last request.
        if budgets != spending.budgeted.budgets:
            spending.budgeted = BudgetedSpender(spender, budgets)
    return spending.budgeted


def find_spending(context: RequestContext[Endpoint], agent_session: str | None) -> Spending:
    """Return the facts that the requests of the caller in an agent session share."""
    caller = context.caller
    # By the id of the caller, because to hash one takes longer than all else, and the agent session.
    known: dict[tuple[int, str | None], Spending] = context.snapshot.caches[__name__]
    key = (id(caller), agent_session)
    found = known.get(key)
    if found is None or found.caller is not caller:
        if len(known) >= _MAX_KEPT:
            known.clear()
        budgets = (*context.snapshot.find_budgets(context.project), *caller.token_budgets)
        spender = make_spender(caller, tuple(context.labels.items()), agent_session)
        limits = context.snapshot.find_limits(context.project)
        claims = list_claims(limits, spender, dict.fromkeys(RateUnit, 1))
        budgeted = BudgetedSpender(spender, budgets)
        found = known[key] = Spending(caller, budgeted, claims, limits.limits_unit(RateUnit.TOKENS))
    return found


def make_spender(caller: Caller, labels: tuple[tuple[str, str], ...] = (), agent_session: str | None = None) -> Spender:
    """Return whom a request of the caller is charged to."""
    return Spender(
        caller.project_id,
        caller.participant,
        caller.user,
        caller.issuer,
        caller.credential_id,
        labels,
        caller.token_ids,
        agent_session,
    )
