"""/v1/audio/transcriptions and /v1/audio/translations: multipart requests, the model is a form field.

    response                                      usage
    json, verbose_json, diarized_json             stated, of type tokens or duration
    stream of transcript.text.* events            stated in transcript.text.done
    text, srt, vtt; a translation                 not stated: inferred from the length of the uploaded audio

`parse` is cheap.  `measure` finds that length if it can be needed; it may take tens of milliseconds and runs in a
thread, between parse and admission.  If the length is unknown and the response would not state it, the request is
rejected: before it is sent it costs nothing, afterwards its charge would be unknown.

Source: OpenAI API reference, "Create transcription", "Create translation" and "Stream event (transcript.text.done)".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from msgspec import structs
from msgspec.structs import replace

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.contract import (
    HttpEndpoint,
    Measure,
    ParsedRequest,
    RequestView,
    ResponseHead,
    UsageReader,
)
from tornado_proxy.providers.openai.audio.audio_length import measure_seconds
from tornado_proxy.providers.openai.audio.transcription_models import is_priced_by_length, transcription_spend
from tornado_proxy.providers.openai.shared.media_readers import EventsReader, OpaqueReader
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP, Shape
from tornado_proxy.providers.shared.json_values import MAX_COUNT, make_quantities
from tornado_proxy.providers.shared.response_readers import JsonReader, choose_reader
from tornado_proxy.providers.shared.token_estimate import estimate_tokens
from tornado_proxy.wire.multipart import Form, read_form

#: Response formats that are text alone (OpenAI API reference, "Create transcription", `response_format`).
_TEXT_FORMATS = frozenset({"text", "srt", "vtt"})
#: The members of a response that are read.  Words and segments repeat its text.
_RESPONSE_SHAPE: Mapping[str, Shape] = {"usage": KEEP, "duration": KEEP, "text": COUNT}
#: Audio tokens of one second, measured: 3.7 s of a recorded request were 37 tokens.
_TOKENS_PER_SECOND = 10
ESTIMATE_METHOD = "transcription_audio_length"


def parse(request: RequestView) -> ParsedRequest:
    """Return the facts of a transcription or translation, and its unchanged body.

    Raises:
        InvalidBody: the form is invalid or ambiguous.
        BadRequest: the model is missing.
    """
    form = _read_form(request)
    model = form.text("model")
    if not model:
        raise BadRequest("the form field model is missing; name a model such as gpt-4o-transcribe", param="model")
    facts = RequestFacts(
        model=model,
        spends=(transcription_spend(model),),
        stream=(form.text("stream") or "").lower() in ("true", "1"),
        body_bytes=len(form.body),
        response_format=form.text("response_format") or "json",
    )
    return ParsedRequest(facts, request.body)


def _read_form(request: RequestView) -> Form:
    return request.form or read_form(request.body, request.content_type)


def measure_transcription(parsed: ParsedRequest, request: RequestView) -> ParsedRequest:
    """Return the request with the seconds of its audio in `facts.inferred`, if they are known.

    Raises:
        BadRequest: the length is unknown, and the response would not state usage.
    """
    required = parsed.facts.response_format in _TEXT_FORMATS
    return _measure(parsed, request, required=required, stating_format="json")


def measure_translation(parsed: ParsedRequest, request: RequestView) -> ParsedRequest:
    """Return the same for a translation: only the response format verbose_json states a length."""
    required = parsed.facts.response_format != "verbose_json"
    return _measure(parsed, request, required=required, stating_format="verbose_json")


def _measure(parsed: ParsedRequest, request: RequestView, *, required: bool, stating_format: str) -> ParsedRequest:
    audio = _read_form(request).content("file")
    if audio is None:
        return parsed  # the provider rejects a request without a file
    seconds = measure_seconds(audio)
    if seconds is not None:
        inferred = (Quantity(Meter.AUDIO_SECONDS, Decimal(seconds)),)
        return structs.replace(parsed, facts=replace(parsed.facts, inferred=inferred))
    if not required:
        return parsed
    response_format = parsed.facts.response_format
    raise BadRequest(
        f"the length of the uploaded audio cannot be read, and a response in the format {response_format!r} does not "
        f"state it; ask for response_format {stating_format}, or upload flac, mp3, m4a, ogg or wav",
        code="audio_length_unknown",
        param="file",
    )


def make_reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the usage reader of a response."""

    def report_without_usage(response_bytes: int) -> UsageReport:
        return _report_without_usage(facts, response_bytes)

    def make_stream_reader() -> UsageReader:
        return EventsReader(
            (b"transcript.text.done",),
            lambda events, _: _report_events(events),
            report_without_usage,
            text_type=b"transcript.text.delta",
        )

    def make_whole_reader() -> UsageReader:
        if facts.response_format in _TEXT_FORMATS:
            return OpaqueReader(report_without_usage)
        return JsonReader(_RESPONSE_SHAPE, lambda body: _report_body(facts, body), report_without_usage)

    return choose_reader(facts, head, make_stream_reader, make_whole_reader)


def _report_events(events: list[dict[str, object]]) -> UsageReport | None:
    return report_usage((event.get("usage") for event in events[-1:]), default_output=Meter.OUTPUT)


def _report_body(facts: RequestFacts, body: dict[str, object]) -> UsageReport | None:
    report = report_usage([body.get("usage")])
    if report is not None:
        return report
    duration = body.get("duration")
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 < duration <= MAX_COUNT:
        return None
    return _report_length(facts, Decimal(math.ceil(duration)), 0)


def _report_without_usage(facts: RequestFacts, response_bytes: int) -> UsageReport:
    if not facts.inferred:
        return UsageReport(faults=("the response states no usage, and the length of the audio is not known",))
    return _report_length(facts, facts.inferred[0].amount, response_bytes)


def _report_length(facts: RequestFacts, seconds: Decimal, output_bytes: int) -> UsageReport:
    """Return the report of audio of `seconds`: exact for a model priced by length, an estimate for any other."""
    if facts.model is not None and is_priced_by_length(facts.model):
        return UsageReport((UsageItem((Quantity(Meter.AUDIO_SECONDS, seconds),)),), Basis.INFERRED)
    amounts = (
        (Meter.INPUT_AUDIO, seconds * _TOKENS_PER_SECOND),
        (Meter.OUTPUT, estimate_tokens(output_bytes)),
    )
    return UsageReport((UsageItem(make_quantities(amounts)),), Basis.ESTIMATED, estimate_method=ESTIMATE_METHOD)


def _endpoint(path: str, measure: Measure) -> HttpEndpoint:
    return HttpEndpoint("POST", path, parse=parse, reader=make_reader, measure=measure, admits_by_fields=True)


TRANSCRIPTIONS = _endpoint("/v1/audio/transcriptions", measure_transcription)
TRANSLATIONS = _endpoint("/v1/audio/translations", measure_translation)
