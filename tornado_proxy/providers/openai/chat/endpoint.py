"""/v1/chat/completions: what a request can cost, and who reads what its answer says it used.

A stream states usage only when it was asked to, so it is asked (docs/decisions/0001); chat_stream.py hides what the
client did not ask for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.providers.contract import (
    HttpEndpoint,
    ParsedRequest,
    RequestView,
    ResponseEdit,
    ResponseEdits,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.chat.reader import ChatStreamReader
from tornado_proxy.providers.openai.chat.usage_hider import UsageHider
from tornado_proxy.providers.openai.shared.response_readers import JsonReader
from tornado_proxy.providers.openai.shared.text_report import estimate_text, report_text
from tornado_proxy.providers.shared.json_body import (
    edit_member,
    flag_member,
    list_member,
    member_bytes,
    read_members,
    required_model,
    splice_first,
    text_member,
)

_MEMBERS = ("model", "stream", "stream_options", "service_tier", "modalities", "web_search_options")

#: A part of a message that holds sound.  Inside JSON text quotation marks are escaped: this is a member or a value.
_SPOKEN_PART = b'"input_audio"'

_ASKING = b'{"include_usage":true}'
_ASK = b'"stream_options":' + _ASKING

#: Chat models that search the web on every call; no usage tells of it.  Source: OpenAI guide, "Web search", "Chat".
_SEARCHING_MODEL = re.compile(r"-search-(?:preview|api)(?:-\d{4}-\d{2}-\d{2})?")
_ONE_SEARCH = Quantity(Meter.WEB_SEARCHES, Decimal(1))


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a chat request; a stream that does not ask for usage is made to."""
    body = request.body
    members = read_members(body, _MEMBERS)
    model = required_model(members)
    stream = flag_member(members, "stream")
    sent = _asking_for_usage(body) if stream else body
    tier = text_member(members, "service_tier")
    inferred = (_ONE_SEARCH,) if _searches(model, members) else ()
    meters = _meters(members, body) | {quantity.meter for quantity in inferred}
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, meters, terms=Terms(service_tier=tier)),),
        stream=stream,
        terms=Terms(service_tier=tier),
        body_bytes=len(body),
        usage_injected=sent is not body,
        inferred=inferred,
    )
    return ParsedRequest(facts, sent)


def _searches(model: str, members: Mapping[str, Any]) -> bool:
    return "web_search_options" in members or _SEARCHING_MODEL.search(model) is not None


def _meters(members: Mapping[str, Any], body: bytes) -> frozenset[Meter]:
    meters = {Meter.INPUT, Meter.OUTPUT}
    if "audio" in list_member(members, "modalities"):
        meters.add(Meter.OUTPUT_AUDIO)
    if _SPOKEN_PART in body:
        meters.add(Meter.INPUT_AUDIO)
    return frozenset(meters)


def _asking_for_usage(body: bytes) -> bytes:
    """`body`, asking for usage: the same object where it does so by itself."""
    options = member_bytes(body, "stream_options")
    if options is None:
        return splice_first(body, _ASK)
    if options == b"null":
        return edit_member(body, "stream_options", lambda _: _ASKING)
    if not options.startswith(b"{"):
        raise InvalidBody('"stream_options" must be an object', param="stream_options")
    # Read again by itself, so that an `include_usage` that stands twice is found.
    if flag_member(read_members(options, ("include_usage",)), "include_usage"):
        return body
    return edit_member(body, "stream_options", _including_usage)


def _including_usage(options: bytes) -> bytes:
    if member_bytes(options, "include_usage") is None:
        return splice_first(options, b'"include_usage":true')
    return edit_member(options, "include_usage", lambda _: b"true")


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""
    if head.media_type == "text/event-stream":
        return ChatStreamReader(facts)
    return JsonReader(lambda body: report_text(facts, body), lambda seen: estimate_text(facts, seen))


def edit(facts: RequestFacts, head: ResponseHead) -> ResponseEdit | None:
    """Hides the usage that was asked for on the client's behalf."""
    return UsageHider() if facts.usage_injected and head.media_type == "text/event-stream" else None


CHAT_ENDPOINTS = (
    HttpEndpoint("POST", "/v1/chat/completions", parse=parse, reader=reader, response_edits=ResponseEdits(body=edit)),
)
