"""/v1/messages/count_tokens: free.  Its `input_tokens` are an answer, not usage, so nothing reads them.

The model must be one that the caller may use; no meter can run, so no tier or speed is looked at.
"""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView
from tornado_proxy.providers.shared.json_body import read_members, required_model


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a request: its model."""
    body = request.body
    model = required_model(read_members(body, ("model",)))
    return ParsedRequest(RequestFacts(model=model, spends=(Spend(model, frozenset()),), body_bytes=len(body)), body)


COUNT_ENDPOINTS = (HttpEndpoint("POST", "/v1/messages/count_tokens", parse=parse, priced_as="/v1/messages"),)
