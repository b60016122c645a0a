"""Checks that what a request can be charged for has a price, and explains why it has none."""

from __future__ import annotations

from tornado_proxy.domain.errors import BadRequest, ModelNotPriced
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint


def require_priced_spend(context: RequestContext[HttpEndpoint], facts: RequestFacts) -> None:
    """Reject a request to a charged endpoint that names nothing with a price: its cost would be unknown."""
    endpoint = context.endpoint
    if facts.spends or not endpoint.charged:
        return
    if endpoint.sideband is None:
        raise ModelNotPriced("the request names no model; name one that has a price", param="model")
    if context.caller.session is None:
        raise BadRequest(
            "the call names no session; send a form with sdp and session, or a key from /v1/realtime/client_secrets",
            param="session",
        )


def check_provider(context: RequestContext[Endpoint], model: str) -> None:
    """Raise ModelNotPriced if `model` has a price at another provider only: the client has the wrong base URL."""
    prices, own = context.snapshot.prices, context.provider
    if prices.resolve(own.name, model) is not None:
        return
    for other in context.snapshot.routes.providers:
        if prices.resolve(other.name, model) is not None:
            raise ModelNotPriced(
                f"{model} is an {other.title} model; its API is served under /{other.prefix}", param="model"
            )
