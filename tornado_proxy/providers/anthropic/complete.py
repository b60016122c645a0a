"""/v1/complete, the legacy completions: no usage anywhere, and only models without a price.

The endpoint is served so that a caller is told so: admission refuses each model that has no price on it.
"""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.shared.json_body import read_members, required_model


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a request."""
    body = request.body
    model = required_model(read_members(body, ("model",)))
    spend = Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}))
    return ParsedRequest(RequestFacts(model=model, spends=(spend,), body_bytes=len(body)), body)


class _NoUsage:
    """A response that states no usage: its cost is unknown, and its record says so."""

    object_id: str | None = None

    def feed(self, data: bytes) -> None:
        """Look at nothing."""

    def close(self, *, complete: bool) -> None:
        """Nothing to end."""

    def result(self) -> UsageReport:
        """Not known."""
        return UsageReport(basis=Basis.UNSETTLED)


def _reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    return _NoUsage()


COMPLETE_ENDPOINTS = (HttpEndpoint("POST", "/v1/complete", parse=parse, reader=_reader),)
