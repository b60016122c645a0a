"""Finds the bound of a request by what it shares with others of its caller: nearly all reserve without arithmetic.

    caller, agent session, models, work, length rounded up ──> SharedReservation ──> slices.take_sliced()

So bodies that grow with each request of an agent find a bound, too.  It is some per cent above that of the request
alone, with which the database decides near the limit of a budget.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime

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
    """What requests of a caller share that begin from `begin` on and before `end`, aware UTC."""

    sliced: SlicedBound
    stated: StatedBound
    begin: datetime
    end: datetime
    tariff: Tariff
    caller: Caller  # its id is in the key: no other one may get it


_Known = MutableMapping[tuple[object, ...], SharedReservation]


def find_shared(
    context: RequestContext[Endpoint], tariff: Tariff, facts: RequestFacts, start: RequestStart, slices: Slices
) -> SharedReservation | None:
    """Return what a request shares; None if more than budgets of the configuration limits it, or decides its bound."""
    snapshot, at = context.snapshot, start.started_at
    if not context.is_plain:
        return None
    # To hash a caller takes longer than all else.
    key = (
        id(context.caller),
        start.attribution.agent_session,
        facts.spends,
        facts.terms.cache_ttl,
        facts.work,
        round_up_length(facts.body_bytes),
    )
    known: _Known = snapshot.caches[__name__]
    shared = known.get(key)
    if shared is not None and shared.tariff is tariff and shared.begin <= at < shared.end:
        return shared
    bound = snapshot.cost_bounds.share(tariff, facts, at)
    if bound is None:
        return None
    spending = find_spending(context, start.attribution.agent_session)
    sliced = slices.divide(spending.budgeted, bound.bound, at)
    begin, end = max(bound.since, sliced.begin), min(bound.until, sliced.end)
    if len(known) >= _MAX_KEPT:
        known.clear()
    shared = known[key] = SharedReservation(sliced, bound.bound.state(), begin, end, tariff, context.caller)
    return shared
