"""Finds the bound that a request shares with others of its caller, in a cache.

    caller, agent session, models, work, length rounded up ──> SharedReservation ──> slices.take_sliced()

So bodies that grow with each request of an agent find a bound, too.  It is that of a body some per cent longer; the
bound of the request alone decides near the limit of a budget.  Callers that are made anew for each request, as those of
session keys are, share nothing.
"""

from __future__ import annotations

import msgspec

from tornado_proxy.budgets.leases.slices import SlicedBound, Slices
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.budgets.reservations import find_spending
from tornado_proxy.gateway.context import RequestContext, RequestStart
from tornado_proxy.pricing.book.cost_bounds import round_up_length
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Endpoint

#: Entries of the cache of a snapshot, a kilobyte each.  Clients choose sessions, models and lengths.
_MAX_KEPT = 8192


class SharedReservation(msgspec.Struct, frozen=True):
    """What requests of a caller share.  `tariff` and `caller` are kept alive, because their ids are in the key."""

    sliced: SlicedBound
    stated: StatedBound
    tariff: Tariff
    caller: Caller


def find_shared(
    context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, start: RequestStart, slices: Slices
) -> SharedReservation | None:
    """Return what a request shares; None if more than budgets of the configuration limits it, or decides its bound."""
    # Quantities that the request states, and a session without a body, have bounds of their own.
    if not context.shares_bounds or facts.inferred or not facts.body_bytes:
        return None
    snapshot, at, agent_session = context.snapshot, start.started_at, start.attribution.agent_session
    key = (
        id(context.caller),  # to hash a caller is slow
        id(tariff),
        agent_session,
        facts.spends,
        facts.terms.cache_ttl,
        facts.work,
        round_up_length(facts.body_bytes),
    )
    known: dict[tuple[object, ...], SharedReservation] = snapshot.caches[__name__]
    shared = known.get(key)
    if shared is not None and shared.sliced.begin <= at < shared.sliced.end:
        return shared
    spending = find_spending(context, agent_session)
    if not spending.is_known:
        spending.is_known = True
        return None
    bound = snapshot.cost_bounds.share(tariff, facts, at)
    if bound is None:
        return None
    sliced = slices.divide(spending.budgeted, bound.bound, at).narrow(bound.since, bound.until)
    if len(known) >= _MAX_KEPT:
        known.clear()
    shared = known[key] = SharedReservation(sliced, bound.bound.state(), tariff, context.caller)
    return shared
