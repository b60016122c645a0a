"""/v1/messages: what a request can cost, and what its answer says it used."""

from __future__ import annotations

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.anthropic.messages.report import (
    decode_object,
    estimate_message,
    report_message,
)
from tornado_proxy.providers.anthropic.messages.request import MEMBERS, facts_of
from tornado_proxy.providers.anthropic.messages.stream import MessageStreamReader
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_body import read_members


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a request; the body is sent as it came."""
    body = request.body
    return ParsedRequest(facts_of(body, read_members(body, MEMBERS)), body)


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""
    return MessageStreamReader(facts) if head.media_type == "text/event-stream" else MessageJsonReader(facts)


class MessageJsonReader:
    """A message as one JSON object."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._chunks: list[bytes] = []
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._chunks.append(data)
        self._seen += len(data)

    def close(self, *, complete: bool) -> None:
        """Nothing to end: a body that broke off is no JSON."""

    def result(self) -> UsageReport:
        """The usage of the body; where it has none, an estimate by the lengths of request and answer."""
        message = decode_object(b"".join(self._chunks))
        self._chunks.clear()
        usage = message.get("usage")
        if isinstance(usage, dict):
            return report_message(message, usage)
        return estimate_message(self._facts, message, {}, token_estimate.tokens_of(self._seen))


MESSAGE_ENDPOINTS = (HttpEndpoint("POST", "/v1/messages", parse=parse, reader=reader),)
