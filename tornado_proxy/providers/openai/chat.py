"""/v1/chat/completions: what a request can cost, and what its answer says it used.

A stream states usage only when it was asked to, so it is asked (docs/decisions/0001); chat_stream.py hides what the
client did not ask for.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.errors import BodyNotReadable
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, Reading, UsageReport
from tornado_proxy.providers import estimate
from tornado_proxy.providers.endpoint import AnswerHead, BodyEdit, Endpoint, ParsedRequest, UsageReader
from tornado_proxy.providers.json_body import (
    edit_member,
    holds_member,
    read_members,
    required_model,
    splice_first,
    text_member,
)
from tornado_proxy.providers.openai.chat_stream import UsageHider
from tornado_proxy.providers.openai.media_readers import NothingCharged
from tornado_proxy.providers.openai.text_usage import read_text_usage
from tornado_proxy.providers.openai.usage_report import decode_object
from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block

_MEMBERS = ("model", "stream", "stream_options", "service_tier", "modalities")

#: A part of a message that holds sound.  Inside JSON text quotation marks are escaped: this is a member or a value.
_SPOKEN_PART = b'"input_audio"'

_ASKING = b'{"include_usage":true}'
_ASK = b'"stream_options":' + _ASKING


def parse(body: bytes, content_type: str) -> ParsedRequest:
    """The facts of a chat request; a stream that does not ask for usage is made to."""
    members = read_members(body, _MEMBERS)
    model = required_model(members)
    options = members.get("stream_options")
    stream = members.get("stream") is True
    injected = stream and not (isinstance(options, dict) and options.get("include_usage") is True)
    tier = text_member(members, "service_tier")
    facts = RequestFacts(
        model=model,
        spends=(Spend(model, _meters(members, body), service_tier=tier),),
        stream=stream,
        service_tier=tier,
        body_bytes=len(body),
        usage_injected=injected,
    )
    return ParsedRequest(facts, _ask_for_usage(body, options) if injected else body)


def _meters(members: Any, body: bytes) -> frozenset[Meter]:
    meters = {Meter.INPUT, Meter.OUTPUT}
    modalities = members.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        meters.add(Meter.OUTPUT_AUDIO)
    if _SPOKEN_PART in body:
        meters.add(Meter.INPUT_AUDIO)
    return frozenset(meters)


def _ask_for_usage(body: bytes, options: object) -> bytes:
    if options is not None and not isinstance(options, dict):
        raise BodyNotReadable('"stream_options" must be an object', param="stream_options")
    if options is None:
        # A null member may be there: a second one beside it would leave the choice to the provider's JSON reader.
        null_is_there = holds_member(body, "stream_options")
        return edit_member(body, "stream_options", lambda _: _ASKING) if null_is_there else splice_first(body, _ASK)
    if "include_usage" in options:
        return edit_member(body, "stream_options", lambda raw: edit_member(raw, "include_usage", lambda _: b"true"))
    return edit_member(body, "stream_options", lambda raw: splice_first(raw, b'"include_usage":true'))


def reader(facts: RequestFacts, head: AnswerHead) -> UsageReader:
    """What reads the usage of one answer."""
    if not head.ok:
        return NothingCharged()
    return ChatStreamReader(facts) if head.media_type == "text/event-stream" else ChatJsonReader(facts)


def edit(facts: RequestFacts, head: AnswerHead) -> BodyEdit | None:
    """Hides the usage that was asked for on the client's behalf."""
    return UsageHider() if facts.usage_injected and head.media_type == "text/event-stream" else None


class ChatJsonReader:
    """A JSON answer: one usage for all choices."""

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
        """The usage of the body, else an estimate."""
        body = decode_object(b"".join(self._chunks))
        self._chunks.clear()
        stated = report_chat([] if body is None else [body])
        return stated if stated is not None else estimate_text(self._facts, self._seen)


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    """What is looked at in a chunk; its other members are passed over unread."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: dict[str, Any] | None = None
    choices: list[_Choice] = []


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatStreamReader:
    """A stream: usage stands in one of its last chunks, on an empty one where OpenAI sends it."""

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._splitter = SseSplitter()
        self._last = _Chunk()
        self._usage: dict[str, Any] | None = None
        self._text_bytes = 0
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
        """The usage that was stated last, else an estimate by the text that was seen."""
        last = self._last
        if self._usage is not None:
            body = {"id": last.id, "model": last.model, "service_tier": last.service_tier, "usage": self._usage}
            stated = report_chat([body])
            if stated is not None:
                return stated
        return estimate_text(self._facts, self._text_bytes, model=last.model, object_id=last.id)

    def _read(self, block: bytes) -> None:
        data = parse_block(block).data
        if not data.startswith(b"{"):
            return
        chunk = _decode(data)
        if chunk is None:
            return
        last = self._last
        self._last = _Chunk(chunk.id or last.id, chunk.model or last.model, chunk.service_tier or last.service_tier)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            if choice.delta is not None:
                self._text_bytes += len((choice.delta.content or choice.delta.refusal or "").encode())


def _decode(data: bytes) -> _Chunk | None:
    """A chunk; of one that other hosts shape differently at least the usage."""
    try:
        return _CHUNK.decode(data)
    except msgspec.ValidationError:
        event = decode_object(data) or {}
        usage = event.get("usage")
        return _Chunk(model=_word(event.get("model")), usage=usage if isinstance(usage, dict) else None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def report_chat(bodies: list[dict[str, Any]]) -> UsageReport | None:
    """A report of objects with `usage`, `model` and `service_tier`; None where none has usage."""
    stated = [body for body in bodies if isinstance(body.get("usage"), dict)]
    if not stated:
        return None
    body = stated[-1]
    usage = read_text_usage(body["usage"])
    model = body.get("model")
    return UsageReport(
        readings=(
            Reading(
                usage.quantities,
                model=model if isinstance(model, str) else None,
                service_tier=_word(body.get("service_tier")),
                context_tokens=usage.context_tokens,
            ),
        ),
        basis=Basis.UNSETTLED if usage.faults else Basis.REPORTED,
        raw=msgspec.json.encode(body["usage"]).decode(),
        model=_word(model),
        object_id=_word(body.get("id")),
        faults=usage.faults,
    )


def estimate_text(
    facts: RequestFacts, text_bytes: int, *, model: str | None = None, object_id: str | None = None
) -> UsageReport:
    """What an answer without usage may have used: input by the request's length, output by the text that was seen."""
    read, written = estimate.tokens_of(facts.body_bytes), estimate.tokens_of(text_bytes)
    quantities = (Quantity(Meter.INPUT, Decimal(read)), Quantity(Meter.OUTPUT, Decimal(written)))
    return UsageReport(
        readings=(
            Reading(
                tuple(quantity for quantity in quantities if quantity.amount),
                model=model,
                service_tier=facts.service_tier if facts.service_tier != "auto" else None,
                context_tokens=read,
            ),
        ),
        basis=Basis.ESTIMATED,
        model=model,
        object_id=object_id,
        estimate_method=estimate.METHOD,
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


CHAT_ENDPOINTS = (Endpoint("openai", "POST", "/v1/chat/completions", parse=parse, reader=reader, edit=edit),)
