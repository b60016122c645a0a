"""/v1/responses, /v1/responses/compact and stored responses: parses requests and chooses their usage readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits, limit_work
from tornado_proxy.domain.terms import Terms, make_terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.contract import (
    DeferredUsage,
    HttpEndpoint,
    ParsedRequest,
    RequestView,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.request_members import CONTENT
from tornado_proxy.providers.openai.responses.containers import referenced_containers
from tornado_proxy.providers.openai.responses.declared_tools import CLIENT_TOOLS, flatten_tools, tool_kind
from tornado_proxy.providers.openai.responses.hosted_tools import tool_spends
from tornado_proxy.providers.openai.responses.reader import (
    RESPONSE_SHAPE,
    estimate_response,
    estimate_seen_output,
    is_finished,
    report_response,
)
from tornado_proxy.providers.openai.responses.stream_reader import ResponseStreamReader
from tornado_proxy.providers.openai.shared.text_usage import estimate_text
from tornado_proxy.providers.owned_objects import OwnedObject
from tornado_proxy.providers.shared.json_body import (
    is_text_only,
    read_described,
    read_flag,
    read_limit,
    read_list,
    read_members,
    read_model,
    read_option,
    read_text,
    view_raw,
)
from tornado_proxy.providers.shared.response_readers import JsonReader, choose_reader

#: Members that say who the request is made for (OpenAI API reference), and Codex's description of its session.
_DESCRIBED = ("safety_identifier", "user", "client_metadata")

_MEMBERS = (
    "model",
    "stream",
    "background",
    "service_tier",
    "tools",
    "previous_response_id",
    "conversation",
    "prompt_cache_options",
    "background_options",
    "max_output_tokens",
    "max_tool_calls",
    "prompt",
    *_DESCRIBED,
)

#: The completion window of a response without a discount (openai-python 3.57, BackgroundOptions).
_SOONEST = "soonest"

#: Seconds between polls of a background response.  One with `store: false` disappears after about ten minutes
#: (OpenAI guide, "Background mode"), so the interval must not grow past a small part of that.
_MAX_POLL_INTERVAL_S = 30.0


class _Item(msgspec.Struct):
    """The members of an input item that tell a reference from an item with content, and the tools that it declares."""

    id: Any = None
    type: Any = None
    role: Any = None
    tools: Any = None


_ITEMS = msgspec.json.Decoder(list[_Item | list[Any] | str | int | float | bool | None])
#: Members and types of input whose tokens are not in the body as text.
_OPAQUE_ITEMS = (b"input_image", b"input_file", b"image_url", b"file_id", b"encrypted_content", b"item_reference")

#: A reference may omit its type (OpenAI API reference, responses `input`, "Item reference").
_REFERENCE_TYPES = (None, "item_reference")


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a request, and its unchanged body.

    Raises:
        InvalidBody: a member is missing, repeated or of the wrong type.
    """
    body = request.body
    members = read_members(body, _MEMBERS)
    model = read_model(members)
    terms = _read_terms(body, members)
    items = _read_items(body)
    tools = flatten_tools([*read_list(members, "tools"), *_tools_in(items)])
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}), terms=terms), *tool_spends(model, tools)),
        stream=read_flag(members, "stream"),
        terms=terms,
        body_bytes=len(body),
        background=read_flag(members, "background"),
        continues=read_text(members, "previous_response_id"),
        references=(*_continued_objects(members), *referenced_containers(tools), *_item_references(items)),
        work=_read_work(members, tools, body),
        described=read_described(members, _DESCRIBED),
    )
    return ParsedRequest(facts, body)


def _read_work(members: Mapping[str, Any], tools: Iterable[Mapping[str, object]], body: bytes) -> WorkLimits:
    # A stored prompt can declare tools of its own.
    hosted = "prompt" in members or any(tool_kind(tool) not in CLIENT_TOOLS for tool in tools)
    continues = any(name in members for name in ("previous_response_id", "conversation", "prompt"))
    return limit_work(
        read_limit(members, "max_output_tokens"),
        read_limit(members, "max_tool_calls") if hosted else 0,
        1,
        not continues and is_text_only(body, _OPAQUE_ITEMS, partial(_list_schemas, tools)),
    )


def _list_schemas(tools: Iterable[Mapping[str, object]]) -> list[object]:
    """Return the schemas of the functions among the tools."""
    return [tool.get("parameters") for tool in tools if tool.get("type") == "function"]


def _continued_objects(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the response and the conversation that this response continues."""
    conversation = members.get("conversation")
    conversation_id = conversation.get("id") if isinstance(conversation, dict) else conversation
    ids = (members.get("previous_response_id"), conversation_id)
    return tuple(object_id for object_id in ids if isinstance(object_id, str))


def input_tool_spends(model: str, body: bytes) -> tuple[Spend, ...]:
    """Return the spends of the tools that the input items of `body` declare.

    Raises:
        InvalidBody: the input is neither text nor a list of items.
    """
    return tool_spends(model, flatten_tools(_tools_in(_read_items(body))))


def _read_items(body: bytes) -> list[_Item]:
    """Return the input items, [] for input that is text.

    Raises:
        InvalidBody: the input is neither: tools and references in it would not be seen.
    """
    raw = view_raw(body, "input")
    if raw is None or bytes(raw[:4]).startswith((b'"', b"null")):
        return []
    try:
        items = _ITEMS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidBody('"input" must be text or a list of items', param="input") from None
    # The search once: for each item it would take quadratic time.
    if any(isinstance(item, list) for item in items) and b'"tools"' in bytes(raw):
        raise InvalidBody('"input" must be a list of items, not of lists', param="input")
    return [item for item in items if isinstance(item, _Item)]


def _tools_in(items: list[_Item]) -> list[Any]:
    """Return the tools that items declare: additional_tools and tool_search_output do."""
    return [tool for item in items if isinstance(item.tools, list) for tool in item.tools]


def _item_references(items: list[_Item]) -> tuple[str, ...]:
    """Return the ids of input items that the provider stores and the request only references."""
    return tuple(
        item.id for item in items if isinstance(item.id, str) and item.type in _REFERENCE_TYPES and item.role is None
    )


def _read_terms(body: bytes, members: Mapping[str, Any]) -> Terms:
    """Return the terms that the request asks for.

    Raises:
        InvalidBody: an option is repeated or of the wrong type, or a completion window is asked for in the foreground.
    """
    window = read_option(body, members, "background_options", "completion_window")
    if window == _SOONEST:
        window = None
    if window is not None and not read_flag(members, "background"):
        raise InvalidBody('"background_options.completion_window" needs "background": true', param="background_options")
    return make_terms(
        service_tier=read_text(members, "service_tier"),
        cache_ttl=read_option(body, members, "prompt_cache_options", "ttl"),
        completion_window=window,
    )


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the usage reader of a response."""
    return choose_reader(
        facts,
        head,
        lambda: ResponseStreamReader(facts),
        lambda: JsonReader(
            RESPONSE_SHAPE,
            lambda response: report_response(facts, response),
            lambda text_bytes: estimate_text(facts, max(text_bytes, facts.seen_output_bytes)),
            estimate_body=lambda body, text_bytes: estimate_response(
                facts, max(text_bytes, facts.seen_output_bytes), body
            ),
        ),
    )


_DEFERRED_USAGE = DeferredUsage(
    state=lambda response_id: f"/v1/responses/{response_id}",
    finished=is_finished,
    reader=make_reader,
    cancel=lambda response_id: f"/v1/responses/{response_id}/cancel",
    cancels_deleted=True,
    max_interval_s=_MAX_POLL_INTERVAL_S,
    estimate=estimate_seen_output,
)


def _stored_response(
    method: str, path: str, *, shows_usage: bool = False, ends_usage: bool = False, ends_work: bool = False
) -> HttpEndpoint:
    # Free: a response is charged when it is created, not when it is fetched or deleted.
    return HttpEndpoint(
        method,
        path,
        objects=OwnedObject(),
        shows_usage=_DEFERRED_USAGE if shows_usage else None,
        ends_usage=_DEFERRED_USAGE if ends_usage else None,
        ends_work=ends_work,
    )


RESPONSE_ENDPOINTS = (
    HttpEndpoint(
        "POST",
        "/v1/responses",
        parse=parse,
        reader=make_reader,
        deferred_usage=_DEFERRED_USAGE,
        content_members=CONTENT,
    ),
    HttpEndpoint("POST", "/v1/responses/compact", parse=parse, reader=make_reader, content_members=CONTENT),
    HttpEndpoint("POST", "/v1/responses/input_tokens", parse=parse, priced_as="/v1/responses", content_members=CONTENT),
    _stored_response("GET", "/v1/responses/{id}", shows_usage=True),
    _stored_response("DELETE", "/v1/responses/{id}", ends_usage=True),
    _stored_response("POST", "/v1/responses/{id}/cancel", shows_usage=True, ends_work=True),
    _stored_response("GET", "/v1/responses/{id}/input_items"),
)
