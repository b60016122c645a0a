"""/v1/complete, the legacy completions: no usage anywhere, and only models without a price.

The endpoint is served so that a caller is told so: admission refuses each model that has no price on it.
"""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import Endpoint, ParsedRequest, ResponseHead, UsageReader
from tornado_proxy.providers.shared.json_body import read_members, required_model


def parse(body: bytes, content_type: str) -> ParsedRequest:
    """The facts of a request."""
    model = required_model(read_members(body, ("model",)))
    spend = Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}))
    return ParsedRequest(RequestFacts(model=model, spends=(spend,), body_bytes=len(body)), body)


class _NoUsage:
    """An answer that states nothing: should one come, its cost is not known, and its record says so."""

    def __init__(self, head: ResponseHead) -> None:
        self._basis = Basis.UNSETTLED if head.ok else Basis.FREE

    def feed(self, data: bytes) -> None:
        """Look at nothing."""

    def close(self, *, complete: bool) -> None:
        """Nothing to end."""

    def result(self) -> UsageReport:
        """Not known."""
        return UsageReport(basis=self._basis)


def _reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    return _NoUsage(head)


COMPLETE_ENDPOINTS = (Endpoint("anthropic", "POST", "/v1/complete", parse=parse, reader=_reader),)
