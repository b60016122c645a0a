"""/v1/audio/speech: text in, audio out.

tts-1 and tts-1-hd are charged by the characters of `input`.  Later models are charged by tokens.  A binary response
does not state them, but an SSE response does, in `speech.audio.done`.  So the proxy asks the provider for SSE: it
splices `"stream_format":"sse"` into the client's body, and speech_audio.py decodes the events to the audio that the
client asked for.  An installation can turn that off; then the tokens are estimated.

Source: OpenAI API reference, "Create speech" and "Stream event (speech.audio.done)"; pricing page.
"""

from __future__ import annotations

import math
from decimal import Decimal

from msgspec.structs import replace

from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
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
from tornado_proxy.providers.openai.shared.media_readers import EventsReader, OpaqueReader
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.json_body import has_member, read_members, read_model, read_text
from tornado_proxy.providers.shared.json_edit import edit_member, insert_first
from tornado_proxy.providers.shared.json_values import make_quantities
from tornado_proxy.providers.shared.response_readers import choose_edit, choose_reader
from tornado_proxy.providers.shared.token_estimate import estimate_tokens

PATH = "/v1/audio/speech"

_MEMBERS = ("model", "input", "instructions", "response_format", "stream_format")
#: Values of `stream_format` that ask for binary audio.
_BINARY_STREAM_FORMATS = (b'"audio"', b"null")

#: Media types of the audio formats (OpenAI API reference, "Create speech", `response_format`).
_DEFAULT_FORMAT = "mp3"
_MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
#: Bytes per second of the formats with a constant rate: 24 kHz, mono, 16 bits (OpenAI guide "Text to speech",
#: "Supported output formats"), and MP3 at 128 kbit/s, as in recorded responses.
_BYTES_PER_SECOND = {"mp3": 16_000, "wav": 48_000, "pcm": 48_000}
#: Audio tokens of one second of speech: one for 50 ms (OpenAI guide "Managing costs" of the Realtime API).
_TOKENS_PER_SECOND = 20
#: Characters spoken in a second: a rule of thumb for English, used for formats without a constant rate.
_CHARACTERS_PER_SECOND = 15

_CHARACTER_METERS = frozenset({Meter.INPUT_CHARACTERS})
_TOKEN_METERS = frozenset({Meter.INPUT, Meter.OUTPUT_AUDIO})


def is_priced_by_characters(model: str) -> bool:
    """Return True if `model` is of the tts-1 family, dated models included."""
    return model.startswith("tts-1")


def media_type_of(response_format: str | None) -> str:
    """Return the Content-Type of audio in `response_format`; None is the default, mp3."""
    return _MEDIA_TYPES.get(response_format or _DEFAULT_FORMAT, "application/octet-stream")


def speech_endpoint(*, exact: bool = True) -> HttpEndpoint:
    """Return the endpoint.  If `exact`, ask for SSE when only SSE states usage; else estimate the usage."""
    edits = ResponseEdits(body=make_edit, content_type=edit_content_type)
    parser = parse_exact if exact else parse
    return HttpEndpoint("POST", PATH, parse=parser, reader=make_reader, response_edits=edits)


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a speech request, and its unchanged body.

    Raises:
        InvalidBody: a member is repeated or of the wrong type, or the model is missing.
        BadRequest: the input is missing.
    """
    return ParsedRequest(_read_facts(request.body), request.body)


def parse_exact(request: RequestView) -> ParsedRequest:
    """Return the same as parse(), but with SSE in the body if only an SSE response states usage."""
    body = request.body
    facts = _read_facts(body)
    sse_body = ask_for_sse(body) if _only_sse_states_usage(facts) else None
    if sse_body is None:
        return ParsedRequest(facts, body)
    return ParsedRequest(replace(facts, usage_injected=True), sse_body)


def _read_facts(body: bytes) -> RequestFacts:
    members = read_members(body, _MEMBERS)
    model, text = read_model(members), read_text(members, "input")
    if text is None:
        raise BadRequest('"input" is missing; send the text to speak', param="input")
    characters = Quantity(Meter.INPUT_CHARACTERS, Decimal(len(text)))
    spoken_text = text + (read_text(members, "instructions") or "")
    input_tokens = Quantity(Meter.INPUT, Decimal(estimate_tokens(len(spoken_text.encode()))))
    by_characters = is_priced_by_characters(model)
    return RequestFacts(
        model=model,
        spends=(Spend(model, _CHARACTER_METERS if by_characters else _TOKEN_METERS),),
        stream=members.get("stream_format") == "sse",
        body_bytes=len(body),
        work=WorkLimits(text_only=True),
        inferred=(characters,) if by_characters else (characters, input_tokens),
        response_format=read_text(members, "response_format"),
    )


def ask_for_sse(body: bytes) -> bytes | None:
    """Return `body`, a JSON object, with `"stream_format":"sse"`.

    Return None if it asks for another format than audio, or if the member cannot be edited for certain.
    """
    if not has_member(body, "stream_format"):
        return insert_first(body, b'"stream_format":"sse"')
    try:
        edited = edit_member(
            body, "stream_format", lambda value: b'"sse"' if value in _BINARY_STREAM_FORMATS else value
        )
    except InvalidBody:
        return None
    return edited if edited != body else None


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the usage reader of a response."""
    if facts.model is not None and is_priced_by_characters(facts.model):
        return OpaqueReader(lambda _: UsageReport((UsageItem(facts.inferred),), Basis.INFERRED))
    return choose_reader(
        facts,
        head,
        lambda: EventsReader(
            (b"speech.audio.done",),
            lambda events, _: _report_events(events),
            # The events carry base64, four characters for three bytes of audio.
            lambda response_bytes: _estimate(facts, response_bytes * 3 // 4),
        ),
        lambda: OpaqueReader(lambda response_bytes: _estimate(facts, response_bytes)),
    )


def make_edit(facts: RequestFacts, head: ResponseHead) -> ResponseEdit | None:
    """Return an edit that decodes the events that only the proxy asked for; None for any other response."""
    return choose_edit(facts, head, SpeechAudio) if facts.usage_injected and head.ok else None


def edit_content_type(facts: RequestFacts, head: ResponseHead) -> str | None:
    """Return the Content-Type of the decoded audio, None to keep the provider's."""
    return None if make_edit(facts, head) is None else media_type_of(facts.response_format)


def _only_sse_states_usage(facts: RequestFacts) -> bool:
    known_format = (facts.response_format or _DEFAULT_FORMAT) in _MEDIA_TYPES
    return known_format and not facts.stream and not is_priced_by_characters(facts.model or "")


def _report_events(events: list[dict[str, object]]) -> UsageReport | None:
    return report_usage((event.get("usage") for event in events[-1:]), default_output=Meter.OUTPUT_AUDIO)


def _estimate(facts: RequestFacts, audio_bytes: int) -> UsageReport:
    """Return tokens by the length of the audio if its rate is constant, else by the length of the text."""
    amounts = {quantity.meter: quantity.amount for quantity in facts.inferred}
    rate = _BYTES_PER_SECOND.get(facts.response_format or _DEFAULT_FORMAT)
    seconds = Decimal(audio_bytes) / rate if rate else amounts[Meter.INPUT_CHARACTERS] / _CHARACTERS_PER_SECOND
    tokens = ((Meter.INPUT, amounts[Meter.INPUT]), (Meter.OUTPUT_AUDIO, math.ceil(seconds * _TOKENS_PER_SECOND)))
    return UsageReport(
        (UsageItem(make_quantities(tokens)),),
        Basis.ESTIMATED,
        estimate_method="speech_audio_bytes" if rate else "speech_characters",
    )
