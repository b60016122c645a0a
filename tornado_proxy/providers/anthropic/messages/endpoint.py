"""/v1/messages: parses requests, and reads usage from responses with one JSON body."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.anthropic.messages.report import estimate_message, report_message
from tornado_proxy.providers.anthropic.messages.request import MEMBERS, read_facts
from tornado_proxy.providers.anthropic.messages.stream import MessageStreamReader
from tornado_proxy.providers.anthropic.request_members import CONTENT
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_body import read_members
from tornado_proxy.providers.shared.json_skimmer import KEEP, Shape
from tornado_proxy.providers.shared.response_readers import JsonReader, choose_reader

_MODEL: Mapping[str, Shape] = {"model": KEEP}
#: The members of a message that report_message() reads (report.py, attempt.py, code_execution.py).
_MESSAGE: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "model", "usage", "stop_reason", "stop_details"), KEEP),
    "content": {"type": KEEP, "from": _MODEL, "to": _MODEL, "trigger": {"category": KEEP}},
    "container": {"id": KEEP},
}


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a request; the body is sent unchanged.

    Raises:
        InvalidBody: the body is not a JSON object, names no model, or can be read in two ways.
    """
    body = request.body
    return ParsedRequest(read_facts(body, read_members(body, MEMBERS)), body)


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the reader of a response: its media type, or else its first bytes, say whether it is streamed."""
    # The request's `stream` does not decide: a response to it can still be one JSON body.
    return choose_reader(
        facts,
        head,
        lambda: MessageStreamReader(facts),
        functools.partial(_make_body_reader, facts),
    )


def _make_body_reader(facts: RequestFacts) -> JsonReader:
    """Return the reader of a message: of the usage that it states, else an estimate from request and response."""

    def report_body(message: dict[str, object]) -> UsageReport | None:
        usage = message.get("usage")
        return report_message(message, usage, facts) if isinstance(usage, dict) else None

    def estimate_body(message: dict[str, object], response_bytes: int) -> UsageReport:
        output_tokens = token_estimate.estimate_output(response_bytes, facts.work.output_tokens)
        return estimate_message(facts, message, {}, output_tokens)

    return JsonReader(_MESSAGE, report_body, functools.partial(estimate_body, {}), estimate_body=estimate_body)


MESSAGE_ENDPOINTS = (HttpEndpoint("POST", "/v1/messages", parse=parse, reader=make_reader, content_members=CONTENT),)
