"""/v1/complete, the legacy completions endpoint: its responses state no usage.

No price file prices a model on this path, so admission rejects every request with a message that says so; without the
endpoint, clients would see a bare 404.  Source: Anthropic API reference, "Create a Text Completion".
"""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.shared.json_body import read_limit, read_members, read_model


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a request.

    Raises:
        InvalidBody: the body is not a JSON object or names no model.
    """
    body = request.body
    members = read_members(body, ("model", "max_tokens_to_sample"))
    model = read_model(members)
    spend = Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}))
    work = WorkLimits(output_tokens=read_limit(members, "max_tokens_to_sample"), text_only=True)
    return ParsedRequest(RequestFacts(model=model, spends=(spend,), body_bytes=len(body), work=work), body)


class UnsettledReader:
    """Reads a response that states no usage: its cost stays unknown, and its record says so."""

    object_id: str | None = None

    def feed(self, data: bytes) -> None:
        """Ignore the bytes."""

    def close(self, *, complete: bool) -> None:
        """End the body."""

    def result(self) -> UsageReport:
        """Return an unsettled report."""
        return UsageReport(basis=Basis.UNSETTLED)


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the reader of a response."""
    return UnsettledReader()


COMPLETE_ENDPOINTS = (HttpEndpoint("POST", "/v1/complete", parse=parse, reader=make_reader),)
