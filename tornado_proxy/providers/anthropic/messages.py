"""/v1/messages: what a request can cost, and what its answer says it used.

    message_start.message.usage     the input side, final in most streams; output provisional
    message_delta.usage             cumulative: each member that is there and not null takes the earlier one's place

Never add them, never take the larger: with server tools the input grows in between, after a compaction it shrinks, and
a 0 is a statement too.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, Reading, UsageReport
from tornado_proxy.providers import estimate
from tornado_proxy.providers.anthropic.usage import readings_of
from tornado_proxy.providers.endpoint import AnswerHead, ParsedRequest, UsageReader
from tornado_proxy.providers.json_body import read_members, required_model, text_member
from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block

_MEMBERS = ("model", "stream", "service_tier", "speed", "inference_geo", "tools", "fallbacks")

_TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})

#: The mass of a stream.  Such blocks are not parsed; their length, less what surrounds the text, is for estimates.
_DELTA_START = b"event: content_block_delta"
_DELTA_ENVELOPE_BYTES = 120


def parse(body: bytes, content_type: str) -> ParsedRequest:
    """The facts of a request; the body is sent as it came."""
    members = read_members(body, _MEMBERS)
    model = required_model(members)
    tier, speed = text_member(members, "service_tier"), text_member(members, "speed")
    others = [*_models_of(members.get("tools")), *_models_of(members.get("fallbacks"))]
    facts = RequestFacts(
        model=model,
        spends=(
            Spend(model, _TEXT, service_tier=tier, speed=speed),
            *(Spend(other, _TEXT, service_tier=tier) for other in others),
            *_searches(model, members.get("tools")),
        ),
        stream=members.get("stream") is True,
        service_tier=tier,
        body_bytes=len(body),
    )
    return ParsedRequest(facts, body)


def _models_of(listed: object) -> list[str]:
    """Models that tools (the advisor) or fallbacks name.  `fallbacks: "default"` names none: the provider chooses."""
    entries = listed if isinstance(listed, list) else ()
    return [one["model"] for one in entries if isinstance(one, dict) and isinstance(one.get("model"), str)]


def _searches(model: str, tools: object) -> list[Spend]:
    kinds = [str(tool.get("type")) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    searches = any(kind.startswith("web_search_") for kind in kinds)
    return [Spend(model, frozenset({Meter.WEB_SEARCHES}))] if searches else []


def reader(facts: RequestFacts, head: AnswerHead) -> UsageReader:
    """What reads the usage of one answer."""
    stream = head.media_type == "text/event-stream"
    return MessageStreamReader(facts, charged=head.ok) if stream else MessageJsonReader(facts, charged=head.ok)


class MessageJsonReader:
    """A message as one JSON object."""

    def __init__(self, facts: RequestFacts, *, charged: bool) -> None:
        self._facts = facts
        self._charged = charged
        self._chunks: list[bytes] = []
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._charged:
            self._chunks.append(data)
            self._seen += len(data)

    def close(self, *, complete: bool) -> None:
        """Nothing to end: a body that broke off is no JSON."""

    def result(self) -> UsageReport:
        """The usage of the body, else an estimate."""
        if not self._charged:
            return UsageReport(basis=Basis.FREE)
        message = _object(b"".join(self._chunks))
        self._chunks.clear()
        usage = message.get("usage")
        if isinstance(usage, dict):
            return report_message(message, usage)
        return _estimate(self._facts, {}, self._seen, None, None)


class MessageStreamReader:
    """A stream of events."""

    def __init__(self, facts: RequestFacts, *, charged: bool) -> None:
        self._facts = facts
        self._charged = charged
        self._splitter = SseSplitter()
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._delta_bytes = 0
        self._blocks = 0
        self._finished = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._charged:
            return
        try:
            blocks = self._splitter.feed(data)
        except SseOverflow:
            self._charged = False
            return
        for block in blocks:
            if block.startswith(_DELTA_START):
                self._delta_bytes += max(1, len(block) - _DELTA_ENVELOPE_BYTES)
            else:
                self._read(block)

    def close(self, *, complete: bool) -> None:
        """Read a last event that has no blank line behind it."""
        if self._charged:
            self._read(self._splitter.rest())

    def result(self) -> UsageReport:
        """The final usage; where the stream broke, the input as it was stated and the output by what was seen."""
        if not self._message:
            return UsageReport(basis=Basis.FREE)  # an error in place of a message: nothing was begun
        if self._finished:
            return report_message({**self._message, "content": [None] * self._blocks}, self._usage)
        model, object_id = _word(self._message, "model"), _word(self._message, "id")
        return _estimate(self._facts, self._usage, self._delta_bytes, model, object_id)

    def _read(self, block: bytes) -> None:
        event = _object(parse_block(block).data)
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                self._message = message if isinstance(message, dict) else {}
                usage = self._message.get("usage")
                self._usage = dict(usage) if isinstance(usage, dict) else {}
                self._finished = False
            case "message_delta":
                self._end(event)
            case "content_block_start":
                self._start_block(event.get("content_block"))
            case "content_block_delta":
                self._delta_bytes += max(1, len(block) - _DELTA_ENVELOPE_BYTES)

    def _end(self, event: Mapping[str, Any]) -> None:
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage = _overwritten(self._usage, usage)
            self._finished = True
        delta = event.get("delta")
        if isinstance(delta, dict) and delta.get("stop_reason") is not None:
            self._message["stop_reason"] = delta["stop_reason"]

    def _start_block(self, content: object) -> None:
        self._blocks += 1
        if isinstance(content, dict) and content.get("type") == "fallback":
            served = content.get("to")
            model = served.get("model") if isinstance(served, dict) else served
            if isinstance(model, str):
                self._message["model"] = model


def report_message(message: Mapping[str, Any], usage: Mapping[str, Any]) -> UsageReport:
    """The report of a whole message.  A refusal without content is free, though its usage counts tokens.

    Source of the free refusal: Claude platform release notes, 2026.
    """
    model, object_id = _word(message, "model"), _word(message, "id")
    raw = msgspec.json.encode(usage).decode()
    if message.get("stop_reason") == "refusal" and not message.get("content"):
        return UsageReport(basis=Basis.FREE, raw=raw, model=model, object_id=object_id)
    faults: list[str] = []
    readings = readings_of(usage, model, faults)
    basis = Basis.UNSETTLED if faults else Basis.REPORTED
    return UsageReport(readings, basis, raw, model, object_id, faults=tuple(faults))


def _estimate(
    facts: RequestFacts, usage: Mapping[str, Any], seen_bytes: int, model: str | None, object_id: str | None
) -> UsageReport:
    """Input as stated, or by the request's length; output by what was seen, and at least what was stated."""
    faults: list[str] = []
    output = max(estimate.tokens_of(seen_bytes), _stated(usage, "output_tokens"))
    if usage:
        readings = readings_of({**usage, "output_tokens": output}, model, faults)
    else:
        counts = ((Meter.INPUT, estimate.tokens_of(facts.body_bytes)), (Meter.OUTPUT, output))
        quantities = tuple(Quantity(meter, Decimal(amount)) for meter, amount in counts if amount)
        readings = (Reading(quantities, model=model),)
    return UsageReport(
        readings=readings,
        basis=Basis.ESTIMATED,
        raw=msgspec.json.encode(usage).decode() if usage else None,
        model=model,
        object_id=object_id,
        estimate_method=estimate.METHOD,
        faults=tuple(faults),
    )


def _overwritten(usage: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """`usage` with each member that `later` states; objects member by member, null states nothing."""
    merged = dict(usage)
    for name, value in later.items():
        if value is None:
            continue
        before = merged.get(name)
        both = isinstance(value, dict) and isinstance(before, dict)
        merged[name] = _overwritten(before, value) if both else value  # type: ignore[arg-type]  # `both` says so
    return merged


def _stated(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _word(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None
