"""/v1/responses and /v1/responses/compact: what a request can cost, and who reads what its answer says it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.contract import (
    DeferredUsage,
    HttpEndpoint,
    OwnedObject,
    ParsedRequest,
    RequestView,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.responses.hosted_tools import containers_of, tool_spends
from tornado_proxy.providers.openai.responses.reader import ResponseStreamReader, is_finished, report_response
from tornado_proxy.providers.openai.shared.response_readers import JsonReader
from tornado_proxy.providers.openai.shared.text_report import estimate_text
from tornado_proxy.providers.shared.json_body import (
    flag_member,
    list_member,
    member_bytes,
    read_members,
    required_model,
    text_member,
)

_MEMBERS = (
    "model",
    "stream",
    "background",
    "service_tier",
    "tools",
    "previous_response_id",
    "conversation",
    "prompt_cache_options",
)


class _Item(msgspec.Struct):
    """An item of the input, as far as it can be a reference; one with content of its own is none."""

    id: Any = None
    type: Any = None
    role: Any = None


_ITEMS = msgspec.json.Decoder(list[_Item | str | int | float | bool | None])
_REFERENCE_TYPES = (None, "item_reference")


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a request; the body is sent as it came."""
    body = request.body
    members = read_members(body, _MEMBERS)
    model = required_model(members)
    tier = text_member(members, "service_tier")
    tools = list_member(members, "tools")
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}), terms=Terms(tier)), *tool_spends(model, tools)),
        stream=flag_member(members, "stream"),
        terms=Terms(service_tier=tier, cache_ttl=_cache_ttl(members)),
        body_bytes=len(body),
        background=flag_member(members, "background"),
        references=(*_continued(members), *containers_of(tools), *_referenced_items(body)),
    )
    return ParsedRequest(facts, body)


def _continued(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the earlier response or conversation that this one goes on with."""
    conversation = members.get("conversation")
    named = (
        members.get("previous_response_id"),
        conversation.get("id") if isinstance(conversation, dict) else conversation,
    )
    return tuple(one for one in named if isinstance(one, str))


def _referenced_items(body: bytes) -> tuple[str, ...]:
    """Ids of items that the provider holds and the input only names; their `type` may be left out."""
    try:
        items = _ITEMS.decode(member_bytes(body, "input") or b"[]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()  # text, or what the provider will refuse
    return tuple(
        item.id
        for item in items
        if isinstance(item, _Item) and isinstance(item.id, str) and item.type in _REFERENCE_TYPES and item.role is None
    )


def _cache_ttl(members: Mapping[str, Any]) -> str | None:
    options = members.get("prompt_cache_options")
    ttl = options.get("ttl") if isinstance(options, dict) else None
    return ttl if isinstance(ttl, str) else None


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""
    if head.media_type == "text/event-stream":
        return ResponseStreamReader(facts)
    return JsonReader(lambda body: report_response(facts, body), lambda seen: estimate_text(facts, seen))


_DEFERRED_USAGE = DeferredUsage(
    state=lambda response_id: f"/v1/responses/{response_id}",
    finished=is_finished,
    reader=reader,
    # A response that is not stored is gone after some ten minutes.
    max_interval_s=30.0,
)


def _by_id(method: str, path: str) -> HttpEndpoint:
    """Free: what a stored response cost was charged when it was made."""
    return HttpEndpoint(method, path, objects=OwnedObject())


RESPONSE_ENDPOINTS = (
    HttpEndpoint("POST", "/v1/responses", parse=parse, reader=reader, deferred_usage=_DEFERRED_USAGE),
    HttpEndpoint("POST", "/v1/responses/compact", parse=parse, reader=reader),
    HttpEndpoint("POST", "/v1/responses/input_tokens", parse=parse, priced_as="/v1/responses"),
    _by_id("GET", "/v1/responses/{id}"),
    _by_id("DELETE", "/v1/responses/{id}"),
    _by_id("POST", "/v1/responses/{id}/cancel"),
    _by_id("GET", "/v1/responses/{id}/input_items"),
)
