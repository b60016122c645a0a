"""/v1/audio/speech: text in, audio out.

tts-1 and tts-1-hd are priced by the characters of `input`, whatever the answer.  Later models are priced by tokens,
and a binary answer does not state them; an SSE answer does, in `speech.audio.done`.  So the provider is asked for SSE
(`"stream_format":"sse"` is spliced into the client's bytes), and speech_audio.py turns the events back into the bytes
that the client asked for.  Where an installation does not want that, the tokens are estimated.
"""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.contract import (
    HttpEndpoint,
    ParsedRequest,
    RequestView,
    ResponseEdit,
    ResponseEdits,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.audio.speech_audio import SpeechAudio
from tornado_proxy.providers.openai.shared.response_readers import EventsReader, OpaqueReader
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.json_body import (
    edit_member,
    holds_member,
    read_members,
    required_model,
    splice_first,
    text_member,
)
from tornado_proxy.providers.shared.token_estimate import tokens_of

PATH = "/v1/audio/speech"

_MEMBERS = ("model", "input", "instructions", "response_format", "stream_format")
_ASKS_FOR_AUDIO = (b'"audio"', b"null")

#: Media types of the audio formats; the first is the default (OpenAI API reference, createSpeech).
_MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
#: Bytes a second of the formats with a constant rate: 24 kHz mono, 16 bits or MP3 at 128 kbit/s.
_BYTES_PER_SECOND = {"mp3": 16_000, "wav": 48_000, "pcm": 48_000}
#: Audio tokens of one second of speech: 50 ms a token (OpenAI realtime cost guide).
_TOKENS_PER_SECOND = 20
#: Characters that are spoken in a second, for estimates.
_CHARACTERS_PER_SECOND = 15

_BY_CHARACTERS = frozenset({Meter.INPUT_CHARACTERS})
_BY_TOKENS = frozenset({Meter.INPUT, Meter.OUTPUT_AUDIO})


def priced_by_characters(model: str) -> bool:
    """Whether `model` is one of the tts-1 family, dated ones included."""
    return model.startswith("tts-1")


def media_type(response_format: str | None) -> str:
    """The Content-Type of audio in `response_format`, None being mp3."""
    return _MEDIA_TYPES.get(response_format or "mp3", "application/octet-stream")


def speech_endpoint(*, exact: bool = True) -> HttpEndpoint:
    """The endpoint's row.  `exact`: the provider is asked for SSE where only SSE states usage; else it is estimated."""
    edits = ResponseEdits(body=edit, content_type=answer_type)
    return HttpEndpoint("POST", PATH, parse=parse_exact if exact else parse, reader=reader, response_edits=edits)


def parse(request: RequestView) -> ParsedRequest:
    """The facts of a speech request; the body is the client's own."""
    return ParsedRequest(_facts(request.body), request.body)


def parse_exact(request: RequestView) -> ParsedRequest:
    """The same, and SSE asked for on the client's behalf where only an SSE answer states usage."""
    body = request.body
    facts = _facts(body)
    asking = ask_for_sse(body) if _states_usage_in_events_only(facts) else None
    if asking is None:
        return ParsedRequest(facts, body)
    return ParsedRequest(replace(facts, usage_injected=True), asking)


def _facts(body: bytes) -> RequestFacts:
    members = read_members(body, _MEMBERS)
    model, text = required_model(members), text_member(members, "input")
    if text is None:
        raise BadRequest('"input" is missing; it is the text to speak', param="input")
    characters = Quantity(Meter.INPUT_CHARACTERS, Decimal(len(text)))
    read = tokens_of(len((text + (text_member(members, "instructions") or "")).encode()))
    by_characters = priced_by_characters(model)
    return RequestFacts(
        model=model,
        spends=(Spend(model, _BY_CHARACTERS if by_characters else _BY_TOKENS),),
        stream=members.get("stream_format") == "sse",
        body_bytes=len(body),
        inferred=(characters,) if by_characters else (characters, Quantity(Meter.INPUT, Decimal(read))),
        response_format=text_member(members, "response_format"),
    )


def ask_for_sse(body: bytes) -> bytes | None:
    """`body`, a JSON object, with `"stream_format":"sse"`.

    None where it asks for another format than audio, or the member's place cannot be told for certain.
    """
    if not holds_member(body, "stream_format"):
        return splice_first(body, b'"stream_format":"sse"')
    try:
        asking = edit_member(body, "stream_format", lambda raw: b'"sse"' if raw in _ASKS_FOR_AUDIO else raw)
    except InvalidBody:
        return None
    return asking if asking != body else None


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""
    if facts.model is not None and priced_by_characters(facts.model):
        return OpaqueReader(lambda _: UsageReport((UsageItem(facts.inferred),), Basis.INFERRED))
    if head.media_type == "text/event-stream":
        return EventsReader(
            (b"speech.audio.done",),
            lambda events, _: _from_events(events),
            lambda seen: _estimate(facts, seen * 3 // 4),
        )
    return OpaqueReader(lambda seen: _estimate(facts, seen))


def edit(facts: RequestFacts, head: ResponseHead) -> ResponseEdit | None:
    """Gives the client audio where SSE was asked for on its behalf and came."""
    return SpeechAudio() if _answers_with_events(facts, head) else None


def answer_type(facts: RequestFacts, head: ResponseHead) -> str | None:
    """The Content-Type that the client must see where it differs from the provider's."""
    return media_type(facts.response_format) if _answers_with_events(facts, head) else None


def _answers_with_events(facts: RequestFacts, head: ResponseHead) -> bool:
    return facts.usage_injected and head.ok and head.media_type == "text/event-stream"


def _states_usage_in_events_only(facts: RequestFacts) -> bool:
    known = (facts.response_format or "mp3") in _MEDIA_TYPES
    return known and not facts.stream and not priced_by_characters(facts.model or "")


def _from_events(events: list[dict[str, object]]) -> UsageReport | None:
    return report_usage((event.get("usage") for event in events[-1:]), unnamed_output=Meter.OUTPUT_AUDIO)


def _estimate(facts: RequestFacts, audio_bytes: int) -> UsageReport:
    """Tokens by the length of the audio that was sent where its bit rate is known, else by the text to speak."""
    known = {quantity.meter: quantity.amount for quantity in facts.inferred}
    rate = _BYTES_PER_SECOND.get(facts.response_format or "mp3")
    seconds = Decimal(audio_bytes) / rate if rate else known[Meter.INPUT_CHARACTERS] / _CHARACTERS_PER_SECOND
    spoken = Quantity(Meter.OUTPUT_AUDIO, Decimal(math.ceil(seconds * _TOKENS_PER_SECOND)))
    read = Quantity(Meter.INPUT, known[Meter.INPUT])
    return UsageReport(
        (UsageItem(tuple(quantity for quantity in (read, spoken) if quantity.amount)),),
        Basis.ESTIMATED,
        estimate_method="speech_audio_bytes" if rate else "speech_characters",
    )
