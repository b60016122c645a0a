"""The limits of a request as values: what it takes of them, what it has used in the end, and its refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.budgets.rate_limits import (
    ProjectLimits,
    RateClaim,
    RateRefusal,
    RateState,
    RateUnit,
)
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.errors import BadRequest, LimitReached
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint

#: Seconds after which a client shall try again for a stream: others end at any time.
_STREAM_RETRY_S = 2

#: The unit of line items that count tokens.
_TOKENS = "per_million_tokens"

_CALLER = CounterKind(Scope.PARTICIPANT, Period.TOTAL)

#: Bases of a record that does not tell how many tokens were used: all that the request took counts.
_UNKNOWN = (Basis.PENDING, Basis.UNSETTLED)


def list_claims(limits: ProjectLimits, spender: Spender, units: Mapping[RateUnit, int]) -> tuple[RateClaim, ...]:
    """Return the claims of a request on the limits of its project and caller."""
    scopes = (("", limits.project), (spender.subject(_CALLER), limits.per_participant))
    return tuple(
        RateClaim(spender.project_id, subject, unit, limited[unit], count)
        for subject, limited in scopes
        if subject is not None
        for unit, count in units.items()
        if count and unit in limited
    )


def find_used(record: RequestRecord) -> Mapping[RateUnit, int]:
    """Return the units that a request has used in the end, as far as they differ from what it took."""
    used = {RateUnit.STREAMS: 0}
    if record.basis not in _UNKNOWN:
        items = (item.quantity for item in record.cost.line_items if item.unit == _TOKENS)
        used[RateUnit.TOKENS] = math.ceil(sum(items))
    return used


def require_fitting_tokens(claims: tuple[RateClaim, ...], context: RequestContext[Endpoint]) -> None:
    """Raise BadRequest if a request can use more tokens than its limit has in a minute: it would never be admitted."""
    for claim in claims:
        if claim.unit is RateUnit.TOKENS and claim.units > claim.limit:
            raise BadRequest(
                f"this request can use {claim.units} tokens, and {_describe_owner(claim, context)} is limited to "
                f"{claim.limit} per minute; make it smaller, such as by limits of output tokens and tool calls, or ask "
                f"an admin of project {context.project.name} to raise the limit"
            )


def make_limit_error(refusal: RateRefusal, context: RequestContext[Endpoint]) -> LimitReached:
    """Return the error of a limit that does not admit a request."""
    state = refusal.state
    owner = _describe_owner(state.claim, context)
    if state.wait_s is None:
        message = f"{owner} has {state.claim.limit} streams open, its limit; end one, or wait until one has ended"
        return LimitReached(message, _STREAM_RETRY_S, refusal.states)
    retry_after_s = max(1, math.ceil(state.wait_s))
    return LimitReached(_describe_rate(state, owner, retry_after_s), retry_after_s, refusal.states)


def _describe_rate(state: RateState, owner: str, retry_after_s: int) -> str:
    claim = state.claim
    need = f", and this request can use {claim.units}" if claim.unit is RateUnit.TOKENS else ""
    return (
        f"{owner} is limited to {claim.limit} {claim.unit} per minute; {state.remaining} are left now{need}; "
        f"send the request again in {retry_after_s} s"
    )


def _describe_owner(claim: RateClaim, context: RequestContext[Endpoint]) -> str:
    return claim.subject or f"project {context.project.name}"
