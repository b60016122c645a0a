"""/v1/audio/transcriptions and /v1/audio/translations: multipart, the model is a form field.

    answer                                        usage
    json, verbose_json, diarized_json             stated, by `type`: tokens or duration
    stream of transcript.text.* events            stated in transcript.text.done
    text, srt, vtt; a translation                 not stated: inferred from the length of the uploaded audio

`parse` is cheap.  `measure` finds that length where it can be needed; it may take tens of milliseconds and is meant to
run in a thread, between parse and admission.  A recording whose length cannot be known is refused where the answer
would not state it: before anything is sent nothing is lost, afterwards the charge could not be told.
"""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

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
from tornado_proxy.providers.openai.audio.audio_length import audio_seconds
from tornado_proxy.providers.openai.audio.transcription_models import priced_by_length, transcription_spend
from tornado_proxy.providers.openai.shared.response_readers import EventsReader, JsonReader, OpaqueReader
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.token_estimate import tokens_of
from tornado_proxy.wire.multipart import read_form

#: Formats of a transcription whose answer is text alone.
_PLAIN = frozenset({"text", "srt", "vtt"})
#: Audio tokens of one second: 3.7 s of a recorded request were 37 tokens.
_TOKENS_PER_SECOND = 10
ESTIMATE_METHOD = "transcription_audio_length"


def parse_transcription(request: RequestView) -> ParsedRequest:
    """The facts of a transcription.

    Raises:
        InvalidBody: not a form that can be read in one way only.
        BadRequest: no model.
    """
    body = request.body
    form = read_form(body, request.content_type)
    model = form.text("model")
    if not model:
        raise BadRequest("the form field model is missing; name a model such as gpt-4o-transcribe", param="model")
    facts = RequestFacts(
        model=model,
        spends=(transcription_spend(model),),
        stream=(form.text("stream") or "").lower() in ("true", "1"),
        body_bytes=len(body),
        response_format=form.text("response_format") or "json",
    )
    return ParsedRequest(facts, body)


def measure_transcription(parsed: ParsedRequest, request: RequestView) -> ParsedRequest:
    """The same request with the seconds of its audio in `facts.inferred`.  Pure, and fit for a thread.

    Raises:
        BadRequest: the length cannot be known, and the answer would not state usage.
    """
    return _measured(parsed, request, needed=parsed.facts.response_format in _PLAIN, stating="json")


def measure_translation(parsed: ParsedRequest, request: RequestView) -> ParsedRequest:
    """The same for a translation, of which only a verbose_json answer states a length."""
    needed = parsed.facts.response_format != "verbose_json"
    return _measured(parsed, request, needed=needed, stating="verbose_json")


def _measured(parsed: ParsedRequest, request: RequestView, *, needed: bool, stating: str) -> ParsedRequest:
    audio = read_form(parsed.body, request.content_type).content("file")
    if audio is None:
        return parsed  # the provider refuses a request without a file
    seconds = audio_seconds(audio)
    if seconds is not None:
        return replace(parsed, facts=replace(parsed.facts, inferred=(Quantity(Meter.AUDIO_SECONDS, seconds),)))
    if not needed:
        return parsed
    format_asked = parsed.facts.response_format
    raise BadRequest(
        f"the length of the uploaded audio cannot be read, and an answer in the format {format_asked!r} does not "
        f"state it; ask for response_format {stating}, or upload flac, mp3, m4a, ogg or wav",
        code="audio_length_unknown",
        param="file",
    )


def reader(facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """What reads the usage of one answer."""

    def unstated(seen: int) -> UsageReport:
        return _without_usage(facts, seen)

    if head.media_type == "text/event-stream":
        return EventsReader((b"transcript.text.done",), lambda events, _: _from_events(events), unstated)
    if facts.response_format in _PLAIN:
        return OpaqueReader(unstated)
    return JsonReader(lambda body: _from_body(facts, body), unstated)


def _from_events(events: list[dict[str, object]]) -> UsageReport | None:
    return report_usage((event.get("usage") for event in events[-1:]), unnamed_output=Meter.OUTPUT)


def _from_body(facts: RequestFacts, body: dict[str, object]) -> UsageReport | None:
    stated = report_usage([body.get("usage")])
    if stated is not None:
        return stated
    length = body.get("duration")
    if isinstance(length, bool) or not isinstance(length, int | float) or not 0 < length < math.inf:
        return None
    return _by_length(facts, Decimal(math.ceil(length)), 0)


def _without_usage(facts: RequestFacts, seen: int) -> UsageReport:
    if not facts.inferred:
        return UsageReport(faults=("the answer states no usage, and the length of the audio is not known",))
    return _by_length(facts, facts.inferred[0].amount, seen)


def _by_length(facts: RequestFacts, seconds: Decimal, seen: int) -> UsageReport:
    if facts.model is not None and priced_by_length(facts.model):
        return UsageReport((UsageItem((Quantity(Meter.AUDIO_SECONDS, seconds),)),), Basis.INFERRED)
    amounts = (
        (Meter.INPUT_AUDIO, seconds * _TOKENS_PER_SECOND),
        (Meter.OUTPUT, Decimal(tokens_of(seen))),
    )
    quantities = tuple(Quantity(meter, amount) for meter, amount in amounts if amount)
    return UsageReport((UsageItem(quantities),), Basis.ESTIMATED, estimate_method=ESTIMATE_METHOD)


def _row(path: str, measure: Measure) -> HttpEndpoint:
    return HttpEndpoint("POST", path, parse=parse_transcription, reader=reader, measure=measure)


TRANSCRIPTIONS = _row("/v1/audio/transcriptions", measure_transcription)
TRANSLATIONS = _row("/v1/audio/translations", measure_translation)
