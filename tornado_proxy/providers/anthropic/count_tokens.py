"""/v1/messages/count_tokens: free.  The `input_tokens` of its response are the requested count, not usage.

The request must name a model that the caller may use.  Tier and speed are ignored, because nothing is charged.
"""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.providers.anthropic.request_members import CONTENT
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView
from tornado_proxy.providers.shared.json_body import read_members, read_model


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a request: its model, with no meter to charge.

    Raises:
        InvalidBody: the body is not a JSON object or names no model.
    """
    body = request.body
    model = read_model(read_members(body, ("model",)))
    return ParsedRequest(RequestFacts(model=model, spends=(Spend(model, frozenset()),), body_bytes=len(body)), body)


# The price files list models under the endpoint that charges for them.
COUNT_ENDPOINTS = (
    HttpEndpoint("POST", "/v1/messages/count_tokens", parse=parse, priced_as="/v1/messages", content_members=CONTENT),
)
