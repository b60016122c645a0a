"""/v1/messages: parses requests, and reads usage from responses with one JSON body."""

from __future__ import annotations

import functools

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.anthropic.messages.report import estimate_message, report_message
from tornado_proxy.providers.anthropic.messages.request import MEMBERS, read_facts
from tornado_proxy.providers.anthropic.messages.stream import MessageStreamReader
from tornado_proxy.providers.anthropic.request_members import CONTENT
from tornado_proxy.providers.contract import HttpEndpoint, ParsedRequest, RequestView, ResponseHead, UsageReader
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.body_reader import BodyReader
from tornado_proxy.providers.shared.json_body import read_members
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.providers.shared.response_readers import choose_reader


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
        lambda: BodyReader(functools.partial(report_body, facts)),
    )


def report_body(facts: RequestFacts, body: bytes) -> UsageReport:
    """Return the usage that a message states; without any, an estimate from the lengths of request and response."""
    # A body that broke off is not JSON, so it states no usage either.
    message = decode_object(body) or {}
    usage = message.get("usage")
    if isinstance(usage, dict):
        return report_message(message, usage, facts)
    return estimate_message(facts, message, {}, token_estimate.estimate_tokens(len(body)))


MESSAGE_ENDPOINTS = (HttpEndpoint("POST", "/v1/messages", parse=parse, reader=make_reader, content_members=CONTENT),)
