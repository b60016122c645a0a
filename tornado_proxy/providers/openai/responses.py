"""/v1/responses and /v1/responses/compact: what a request can cost, and what its answer says it used.

    usage                          the calling model's tokens (text_usage.py)
    tool_usage.image_gen           tokens of the image tool's own model, which `usage` does not have
    tool_usage.web_search          searches; where it is absent, web_search_call items with a search action
    file_search_call items         one charge each

A background response is answered at once without usage: its record is pending.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, Reading, UsageReport
from tornado_proxy.providers.endpoint import AnswerHead, Endpoint, Later, ParsedRequest, UsageReader
from tornado_proxy.providers.json_body import read_members, required_model, text_member
from tornado_proxy.providers.openai.chat import estimate_text
from tornado_proxy.providers.openai.media_readers import NothingCharged
from tornado_proxy.providers.openai.modal_usage import read_usage
from tornado_proxy.providers.openai.text_usage import read_text_usage
from tornado_proxy.providers.openai.usage_report import decode_object
from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block

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

#: The image tool's model where neither request nor answer names one.  The provider's own default changes with time;
#: its answers echo which it was, and are believed.
_DEFAULT_IMAGE_MODEL = "gpt-image-2"
_IMAGE_TOOL = "image_generation"
_DRAWN = frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE})

#: `web_search_preview_2025_03_11` is `web_search_preview`: a tool's price does not depend on its date.
_DATE_SUFFIX = re.compile(r"_\d{4}_\d{2}_\d{2}$")
_TOOL_METERS = {
    "web_search": Meter.WEB_SEARCHES,
    "web_search_preview": Meter.WEB_SEARCHES,
    "file_search": Meter.FILE_SEARCHES,
}

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
#: Marks that a terminal event, the first event and a text delta hold; other events are not parsed.
_TERMINAL_MARKS = tuple(name.encode() for name in _TERMINAL)
_CREATED_MARK = b"response.created"
_DELTA_MARK = b".delta"

#: What an input item says that stands for one of an earlier response.
_ITEM_REFERENCE = b'"item_reference"'

_UNFINISHED = frozenset({"queued", "in_progress"})

#: A cache write that lives twelve hours has another price, and usage does not say which one it was.
_TWELVE_HOURS = "12h"


def parse(body: bytes, content_type: str) -> ParsedRequest:
    """The facts of a request; the body is sent as it came."""
    members = read_members(body, _MEMBERS)
    model = required_model(members)
    tier = text_member(members, "service_tier")
    tools = [tool for tool in members.get("tools") or () if isinstance(tool, dict)]
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, frozenset({Meter.INPUT, Meter.OUTPUT}), service_tier=tier), *_tool_spends(model, tools)),
        stream=members.get("stream") is True,
        service_tier=tier,
        body_bytes=len(body),
        background=members.get("background") is True,
        references=_references(members, body),
        cache_ttl=_cache_ttl(members),
    )
    return ParsedRequest(facts, body)


def _tool_spends(model: str, tools: list[dict[str, Any]]) -> list[Spend]:
    spends = []
    for tool in tools:
        kind = _DATE_SUFFIX.sub("", str(tool.get("type")))
        if kind == _IMAGE_TOOL:
            named = tool.get("model")
            image_model = named if isinstance(named, str) else _DEFAULT_IMAGE_MODEL
            spends.append(Spend(image_model, _DRAWN, role="image_generation_tool"))
        elif kind in _TOOL_METERS:
            spends.append(Spend(model, frozenset({_TOOL_METERS[kind]}), when=(("tool", kind),)))
    return spends


def _references(members: Mapping[str, Any], body: bytes) -> tuple[str, ...]:
    conversation = members.get("conversation")
    named = (
        members.get("previous_response_id"),
        conversation.get("id") if isinstance(conversation, dict) else conversation,
    )
    containers = (tool.get("container") for tool in members.get("tools") or () if isinstance(tool, dict))
    # The input is the bulk of a body, and is only looked at where it holds such an item.
    items = read_members(body, ("input",)).get("input") if _ITEM_REFERENCE in body else None
    referred = (
        item.get("id")
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("type") == "item_reference"
    )
    return tuple(one for one in (*named, *containers, *referred) if isinstance(one, str))


def _cache_ttl(members: Mapping[str, Any]) -> str | None:
    options = members.get("prompt_cache_options")
    ttl = options.get("ttl") if isinstance(options, dict) else None
    return ttl if isinstance(ttl, str) else None


def reader(facts: RequestFacts, head: AnswerHead) -> UsageReader:
    """What reads the usage of one answer."""
    if not head.ok:
        return NothingCharged()
    return ResponseStreamReader(facts) if head.media_type == "text/event-stream" else ResponseJsonReader(facts)


class ResponseJsonReader:
    """A response, or a compaction, as one JSON object."""

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
        """What the body says, else an estimate."""
        body = decode_object(b"".join(self._chunks))
        self._chunks.clear()
        report = None if body is None else report_response(self._facts, body)
        return report if report is not None else estimate_text(self._facts, self._seen)


class ResponseStreamReader:
    """A stream of events; usage stands in the terminal one, under `response`."""

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._splitter = SseSplitter()
        self._report: UsageReport | None = None
        self._created: dict[str, Any] = {}
        self._delta_bytes = 0
        self._lost = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._lost:
            return
        try:
            for block in self._splitter.feed(data):
                self._read(block)
        except SseOverflow:
            self._lost = True

    def close(self, *, complete: bool) -> None:
        """Read a last event that has no blank line behind it."""
        if not self._lost:
            self._read(self._splitter.rest())

    def result(self) -> UsageReport:
        """What the terminal event says, else an estimate by the deltas that were seen."""
        if self._report is not None:
            return self._report
        if self._created and self._facts.background:
            return UsageReport(basis=Basis.PENDING, model=_word(self._created, "model"), object_id=self.object_id)
        if not self._created and not self._delta_bytes:
            return UsageReport(basis=Basis.FREE)  # an error event in place of a response: nothing was begun
        return estimate_text(
            self._facts, self._delta_bytes, model=_word(self._created, "model"), object_id=self.object_id
        )

    @property
    def object_id(self) -> str | None:
        """The response's id as soon as the stream has named it: a background response may be fetched before its end."""
        return _word(self._created, "id")

    def _read(self, block: bytes) -> None:
        if _DELTA_MARK in block[:100]:
            self._delta_bytes += _delta_length(block)
        elif any(mark in block[:200] for mark in _TERMINAL_MARKS) or (not self._created and _CREATED_MARK in block):
            self._read_response(parse_block(block).data)

    def _read_response(self, data: bytes) -> None:
        event = decode_object(data) or {}
        response = event.get("response")
        if not isinstance(response, dict):
            return
        if event.get("type") in _TERMINAL:
            self._report = report_response(self._facts, response) or self._report
        elif event.get("type") == "response.created":
            self._created = response


class _Delta(msgspec.Struct):
    delta: str = ""


_DELTA = msgspec.json.Decoder(_Delta)


def _delta_length(block: bytes) -> int:
    try:
        return len(_DELTA.decode(parse_block(block).data).delta.encode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


def report_response(facts: RequestFacts, response: dict[str, Any]) -> UsageReport | None:
    """The report of a response object; None where its usage should be there and is not."""
    model, object_id = _word(response, "model"), _word(response, "id")
    usage, status = response.get("usage"), response.get("status")
    if not isinstance(usage, dict):
        if status in _UNFINISHED:
            return UsageReport(basis=Basis.PENDING, model=model, object_id=object_id)
        if status in ("failed", "cancelled") and not response.get("output"):
            return UsageReport(basis=Basis.FREE, model=model, object_id=object_id)
        return None
    twelve = facts.cache_ttl == _TWELVE_HOURS
    read = read_text_usage(usage, cache_write=Meter.CACHE_WRITE_12H if twelve else Meter.CACHE_WRITE)
    image, image_faults = _image_reading(facts, response)
    calls = Reading(
        (*read.quantities, *_tool_quantities(response)),
        model=model,
        service_tier=_word(response, "service_tier"),
        context_tokens=read.context_tokens,
    )
    faults = (*read.faults, *image_faults)
    return UsageReport(
        readings=(calls, *image),
        basis=Basis.UNSETTLED if faults else Basis.REPORTED,
        raw=msgspec.json.encode(_stated(usage, response)).decode(),
        model=model,
        object_id=object_id,
        objects=_created(response),
        faults=faults,
    )


def _created(response: dict[str, Any]) -> tuple[str, ...]:
    """Ids of output items and containers, which later requests may refer to."""
    items = _items(response)
    named = (*(item.get("id") for item in items), *(item.get("container_id") for item in items))
    return tuple(one for one in named if isinstance(one, str))


def _stated(usage: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """Usage as the provider states it; `tool_usage` stands beside it in the answer."""
    tool_usage = response.get("tool_usage")
    return {**usage, "tool_usage": tool_usage} if isinstance(tool_usage, dict) else usage


def _tool_quantities(response: dict[str, Any]) -> list[Quantity]:
    items = _items(response)
    searches = _searches(response, items)
    files = sum(item.get("type") == "file_search_call" for item in items)
    found = []
    if searches:
        found.append(Quantity(Meter.WEB_SEARCHES, Decimal(searches), (("tool", _search_tool(response)),)))
    if files:
        found.append(Quantity(Meter.FILE_SEARCHES, Decimal(files)))
    return found


def _items(response: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in response.get("output") or () if isinstance(item, dict)]


def _searches(response: dict[str, Any], items: list[dict[str, Any]]) -> int:
    """Searches as `tool_usage` counts them; items are a poorer witness, for pages that are opened cost nothing."""
    stated = response.get("tool_usage")
    web = stated.get("web_search") if isinstance(stated, dict) else None
    number = web.get("num_requests") if isinstance(web, dict) else None
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    actions = (item.get("action") for item in items if item.get("type") == "web_search_call")
    return sum(isinstance(action, dict) and action.get("type") == "search" for action in actions)


def _search_tool(response: dict[str, Any]) -> str:
    kinds = [_DATE_SUFFIX.sub("", str(tool.get("type"))) for tool in _tools(response)]
    return "web_search_preview" if "web_search_preview" in kinds else "web_search"


def _tools(response: dict[str, Any]) -> list[dict[str, Any]]:
    return [tool for tool in response.get("tools") or () if isinstance(tool, dict)]


def _image_reading(facts: RequestFacts, response: dict[str, Any]) -> tuple[tuple[Reading, ...], tuple[str, ...]]:
    stated = response.get("tool_usage")
    usage = stated.get("image_gen") if isinstance(stated, dict) else None
    if not isinstance(usage, dict):
        drawn = sum(item.get("type") == "image_generation_call" for item in _items(response))
        unstated = (f"the image tool made {drawn} images, and its tokens were not reported",)
        return (), unstated if drawn else ()
    echoed = next((tool.get("model") for tool in _tools(response) if tool.get("type") == _IMAGE_TOOL), None)
    asked = next((spend.model for spend in facts.spends if spend.role is not None), _DEFAULT_IMAGE_MODEL)
    read = read_usage(usage, unnamed_output=Meter.OUTPUT_IMAGE)
    model = echoed if isinstance(echoed, str) else asked
    reading = Reading(read.quantities, model=model, context_tokens=read.context_tokens)
    return (reading,) if read.quantities else (), read.faults


def _word(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None


def _finished(body: bytes) -> bool:
    state = decode_object(body)
    return state is not None and state.get("status") not in _UNFINISHED


_LATER = Later(
    state=lambda response_id: f"/v1/responses/{response_id}",
    finished=_finished,
    reader=reader,
    # A response that is not stored is gone after some ten minutes.
    slowest_s=30.0,
)


def _by_id(method: str, path: str) -> Endpoint:
    return Endpoint("openai", method, path, by_id=True)


RESPONSE_ENDPOINTS = (
    Endpoint("openai", "POST", "/v1/responses", parse=parse, reader=reader, later=_LATER),
    Endpoint("openai", "POST", "/v1/responses/compact", parse=parse, reader=reader),
    Endpoint("openai", "POST", "/v1/responses/input_tokens", parse=parse, priced_as="/v1/responses"),
    _by_id("GET", "/v1/responses/{id}"),
    _by_id("DELETE", "/v1/responses/{id}"),
    _by_id("POST", "/v1/responses/{id}/cancel"),
    _by_id("GET", "/v1/responses/{id}/input_items"),
)
