"""Reads the usage of one realtime session: server events in, SocketEvents out.

    session.created, session.updated   -> SessionChanged, if the spends differ
    input_audio_buffer.committed       -> WorkStarted, at the transcription model
    response.created                   -> WorkStarted
    *.delta                            -> counted by length, for an estimate; never parsed
    response.done                      -> UsageReported, once for each response id
    ...transcription.completed         -> UsageReported, once for each (item, content), at the transcription model
    error                              -> WorkRejected
    rate_limits.updated                -> QuotaStated
    close                              -> reports of unfinished work

Both formats of the API are read: the beta names (`response.audio.delta`, `session.input_audio_transcription`) and the
general ones (`response.output_audio.delta`, `session.audio.input.transcription`).  Most of a session is audio events,
which are recognised by their first bytes: 1.7 us for one of 30 KB, against 13 us to parse it.

Source: OpenAI API reference, "Realtime server events"; guide "Managing costs" of the Realtime API.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Basis, Meter, UsageItem, UsageReport
from tornado_proxy.providers.contract import (
    QuotaStated,
    SessionChanged,
    SocketEvent,
    UsageReported,
    WorkRejected,
    WorkStarted,
)
from tornado_proxy.providers.openai.realtime.session_config import (
    input_transcription_spend,
    realtime_spend,
    transcription_models,
)
from tornado_proxy.providers.openai.shared.quota import QUOTA_EVENTS
from tornado_proxy.providers.openai.shared.usage_report import report_usage
from tornado_proxy.providers.shared.json_values import as_object, as_text, decode_object, make_quantities
from tornado_proxy.providers.shared.token_estimate import estimate_tokens

#: The estimate of a response that never reported usage: the length of its deltas.
ESTIMATE_METHOD = "realtime_deltas"

#: `type` where providers write it: first, or after `event_id`.  An event that starts differently is parsed.
_TYPE = re.compile(r'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([a-z_.]+)"')
_RESPONSE_ID = re.compile(r'"response_id"\s*:\s*"([^"\\]+)"')
#: Characters of an event in which its type and response id are searched; the delta itself follows them.
_PREFIX_CHARACTERS = 400

_AUDIO_DELTAS = frozenset({"response.output_audio.delta", "response.audio.delta"})
_TEXT_DELTAS = frozenset(
    {
        "response.output_text.delta",
        "response.text.delta",
        "response.output_audio_transcript.delta",
        "response.audio_transcript.delta",
        "response.function_call_arguments.delta",
    }
)
_SESSION_EVENTS = frozenset(
    {"session.created", "session.updated", "transcription_session.created", "transcription_session.updated"}
)
_COMMITTED = "input_audio_buffer.committed"
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_TRANSCRIPTION_FAILED = "conversation.item.input_audio_transcription.failed"
_PARSED_EVENTS = _SESSION_EVENTS | {
    _COMMITTED,
    _TRANSCRIBED,
    _TRANSCRIPTION_FAILED,
    "response.created",
    "response.done",
    "error",
}

#: Base64 characters of one audio token: 50 ms (guide "Managing costs") at 24 kHz, 16 bits, mono, are 2,400 bytes, and
#: four characters encode three bytes.
_CHARACTERS_PER_AUDIO_TOKEN = 3200
#: Characters around the text of a text delta event in recorded sessions, ids and padding included.
_TEXT_ENVELOPE_CHARACTERS = 260
#: A delta is at least one token, which token_estimate.py takes for four characters.
_MIN_TEXT_CHARACTERS = 4


class RealtimeSession:
    """One session.

    `model` is the one that the URL names, None if it names none.  `opening_spends` hold until the provider describes
    the session.
    """

    def __init__(self, model: str | None, opening_spends: tuple[Spend, ...] = ()) -> None:
        self._model = model
        self._transcription_model: str | None = None
        self._opening_spends = opening_spends
        self._spends = self._possible_spends()
        self._running: dict[str, _DeltaCount] = {}  # by response id
        self._transcribing: dict[str, str] = {}  # item id -> transcription model
        self._done: set[str] = set()
        self._transcribed: set[tuple[str, object]] = set()

    @property
    def model(self) -> str | None:
        """The model of responses, by the provider's latest session event."""
        return self._model

    @property
    def working(self) -> bool:
        """True while a response or a transcription runs."""
        return bool(self._running or self._transcribing)

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Spends of the session by the provider's latest session event."""
        return self._spends

    def feed_server_event(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read one text frame of the provider; return its events.  Never raises."""
        start = frame[:_PREFIX_CHARACTERS]
        prefix = start if isinstance(start, str) else start.decode("utf-8", "replace")
        match = _TYPE.match(prefix)
        if match is not None and match[1] in QUOTA_EVENTS:
            return (QuotaStated(),)
        if match is not None and match[1] not in _PARSED_EVENTS:
            self._count_delta(match[1], prefix, len(frame))
            return ()
        event = decode_object(frame.encode("utf-8", "replace") if isinstance(frame, str) else frame)
        return () if event is None else self._read(event, len(frame))

    def close(self) -> tuple[UsageReport, ...]:
        """End the session; return reports of unfinished responses, estimated, and transcriptions, unsettled."""
        reports = [self._estimate(response_id, count) for response_id, count in self._running.items()]
        for item_id, model in self._transcribing.items():
            fault = f"the session ended before the transcription of {item_id} was reported"
            report = UsageReport(model=model, object_id=item_id, names_object=False, faults=(fault,))
            reports.append(report)
        self._running.clear()
        self._transcribing.clear()
        return tuple(reports)

    def _read(self, event: dict[str, object], length: int) -> tuple[SocketEvent, ...]:
        kind = event.get("type")
        if kind == "response.done":
            return self._end_response(as_object(event.get("response")))
        if kind == "response.created":
            return self._start_response(as_text(as_object(event.get("response")).get("id")) or "")
        if kind == _TRANSCRIBED:
            return self._end_transcription(event)
        if kind == "error":
            return (WorkRejected(event_id=as_text(as_object(event.get("error")).get("event_id"))),)
        if kind in _SESSION_EVENTS:
            return self._change_session(as_object(event.get("session")))
        if kind in QUOTA_EVENTS:
            return (QuotaStated(),)
        if kind == _TRANSCRIPTION_FAILED:
            self._transcribing.pop(_item_id(event), None)
        elif kind == _COMMITTED and self._transcription_model is not None:
            return self._start_transcription(_item_id(event), self._transcription_model)
        elif isinstance(kind, str):
            # A delta whose type is not first.  Its response id can be after the prefix, so it is passed on.
            self._count_delta(kind, f'"response_id":"{as_text(event.get("response_id")) or ""}"', length)
        return ()

    def _change_session(self, session: dict[str, object]) -> tuple[SocketEvent, ...]:
        self._model = as_text(session.get("model")) or self._model
        self._transcription_model = next(iter(transcription_models(session)), None)
        before, self._spends = self._spends, self._possible_spends()
        return () if self._spends == before else (SessionChanged(self._spends),)

    def _possible_spends(self) -> tuple[Spend, ...]:
        model, transcription_model = self._model, self._transcription_model
        spends = (
            *(() if model is None else (realtime_spend(model),)),
            *(() if transcription_model is None else (input_transcription_spend(transcription_model),)),
        )
        return spends or self._opening_spends

    def _start_response(self, response_id: str) -> tuple[SocketEvent, ...]:
        if response_id in self._done or response_id in self._running:
            return ()
        self._running[response_id] = _DeltaCount()
        return (WorkStarted(response_id),)

    def _start_transcription(self, item_id: str, model: str) -> tuple[SocketEvent, ...]:
        # The model can change before the transcription completes; the one at the commit is charged.
        self._transcribing[item_id] = model
        return (WorkStarted(item_id),)

    def _count_delta(self, kind: str, prefix: str, length: int) -> None:
        if kind in _AUDIO_DELTAS:
            self._find_count(prefix).audio_characters += length
        elif kind in _TEXT_DELTAS:
            self._find_count(prefix).text_characters += max(_MIN_TEXT_CHARACTERS, length - _TEXT_ENVELOPE_CHARACTERS)

    def _find_count(self, prefix: str) -> _DeltaCount:
        """Return the count of the delta's response; a new one, soon discarded, if no such response runs."""
        match = _RESPONSE_ID.search(prefix)
        return self._running.get(match[1], _DeltaCount()) if match is not None else _DeltaCount()

    def _end_response(self, response: dict[str, object]) -> tuple[SocketEvent, ...]:
        response_id = as_text(response.get("id")) or ""
        if response_id in self._done:
            return ()
        if response_id:
            self._done.add(response_id)
        count = self._running.pop(response_id, _DeltaCount())
        report = report_usage([response.get("usage")], model=self._model)
        if report is not None:
            return (UsageReported(replace(report, object_id=response_id or None)),)
        has_output = count.audio_characters or count.text_characters or response.get("output")
        if response.get("status") == "failed" and not has_output:
            free = UsageReport(basis=Basis.FREE, model=self._model, object_id=response_id or None)
            return (UsageReported(free),)
        return (UsageReported(self._estimate(response_id, count)),)

    def _end_transcription(self, event: dict[str, object]) -> tuple[SocketEvent, ...]:
        item_id = _item_id(event)
        key = (item_id, str(event.get("content_index")))
        model = self._transcribing.pop(item_id, None) or self._transcription_model
        if key in self._transcribed:
            return ()
        self._transcribed.add(key)
        report = report_usage([event.get("usage")], model=model)
        if report is None:
            fault = f"the transcription of {item_id} was reported without usage"
            report = UsageReport(basis=Basis.UNSETTLED, model=model, faults=(fault,))
        return (UsageReported(replace(report, object_id=item_id or None, names_object=False)),)

    def _estimate(self, response_id: str, count: _DeltaCount) -> UsageReport:
        amounts = (
            (Meter.OUTPUT, estimate_tokens(count.text_characters)),
            (Meter.OUTPUT_AUDIO, -(-count.audio_characters // _CHARACTERS_PER_AUDIO_TOKEN)),
        )
        return UsageReport(
            items=(UsageItem(make_quantities(amounts), model=self._model),),
            basis=Basis.ESTIMATED,
            model=self._model,
            object_id=response_id or None,
            estimate_method=ESTIMATE_METHOD,
            faults=(f"response {response_id} reported no usage; its output is estimated, its input is not known",),
        )


class _DeltaCount:
    """Characters of a response's deltas."""

    __slots__ = ("audio_characters", "text_characters")

    def __init__(self) -> None:
        self.audio_characters = 0
        self.text_characters = 0


def _item_id(event: dict[str, object]) -> str:
    return as_text(event.get("item_id")) or ""
