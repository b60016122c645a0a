"""What one realtime session used: server events in, a report for each response and each transcription out.

    session.created, session.updated   -> SessionChanged, if the models differ
    input_audio_buffer.committed       -> WorkStarted, at the transcription model
    response.created                   -> WorkStarted
    *.delta                            -> counted by length, for an estimate; never parsed
    response.done                      -> UsageReported, once per response id
    ...transcription.completed         -> UsageReported, once per (item, content), at the transcription model
    error                              -> WorkRejected
    close                              -> an estimate for what still ran

Both shapes of the API are read: the beta names (`response.audio.delta`, `session.input_audio_transcription`) and the
general ones (`response.output_audio.delta`, `session.audio.input.transcription`).  An audio event is most of a session
and is known by its first bytes: 1.7 us for one of 30 KB, against 13 us for parsing it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.contract import SessionChanged, SocketEvent, UsageReported, WorkRejected, WorkStarted
from tornado_proxy.providers.openai.audio.transcription_models import transcription_spend
from tornado_proxy.providers.openai.shared.usage_report import decode_object, report_usage
from tornado_proxy.providers.shared.token_estimate import tokens_of

#: How a response is estimated that never reported usage: the length of its deltas.
ESTIMATE_METHOD = "realtime_deltas"
INPUT_TRANSCRIPTION = "input_transcription"

_SPOKEN = frozenset(
    {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.OUTPUT,
        Meter.INPUT_AUDIO,
        Meter.CACHED_INPUT_AUDIO,
        Meter.OUTPUT_AUDIO,
    }
)

#: `type` where providers write it: first, or after `event_id`.  Anything else is parsed whole.
_TYPE = re.compile(r'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([a-z_.]+)"')
_RESPONSE_ID = re.compile(r'"response_id"\s*:\s*"([^"\\]+)"')
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
_SESSIONS = frozenset(
    {"session.created", "session.updated", "transcription_session.created", "transcription_session.updated"}
)
_COMMITTED = "input_audio_buffer.committed"
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_NOT_TRANSCRIBED = "conversation.item.input_audio_transcription.failed"
_READ = _SESSIONS | {_COMMITTED, _TRANSCRIBED, _NOT_TRANSCRIBED, "response.created", "response.done", "error"}

#: Base64 characters of one audio token: 50 ms of 24 kHz, 16 bits, mono, four characters for three bytes.
_CHARACTERS_PER_AUDIO_TOKEN = 3200
#: Characters that a text delta event has around its text, ids and padding included; a delta is at least one token.
_TEXT_ENVELOPE, _SHORTEST_TEXT = 260, 4


def realtime_spend(model: str) -> Spend:
    """What a realtime session with `model` can cost, pictures aside (they are admitted when one is sent)."""
    return Spend(model, _SPOKEN)


class RealtimeSession:
    """One session.  `model` is that of the URL, None where the URL names none."""

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._transcription_model: str | None = None
        self._spends = self._possible_spends()
        self._running: dict[str, _Seen] = {}
        self._awaited: dict[str, str] = {}
        self._done: set[str] = set()
        self._transcribed: set[tuple[str, object]] = set()

    @property
    def model(self) -> str | None:
        """The model that answers, as the provider last said."""
        return self._model

    @property
    def working(self) -> bool:
        """Whether a response or a transcription runs."""
        return bool(self._running or self._awaited)

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Spends of the session by the provider's latest session event."""
        return self._spends

    def feed_server_event(self, text: str | bytes) -> tuple[SocketEvent, ...]:
        """Read one text frame of the provider; return its events.  Never raises."""
        head = text[:_PREFIX_CHARACTERS]
        prefix = head if isinstance(head, str) else head.decode("utf-8", "replace")
        match = _TYPE.match(prefix)
        if match is not None and match[1] not in _READ:
            self._count(match[1], prefix, len(text))
            return ()
        event = decode_object(text.encode("utf-8", "replace") if isinstance(text, str) else text)
        return () if event is None else self._read(event, len(text))

    def close(self) -> tuple[UsageReport, ...]:
        """The session has ended; give what it leaves open, estimated or unsettled."""
        reports = [self._estimate(response_id, seen) for response_id, seen in self._running.items()]
        for item_id, model in self._awaited.items():
            fault = f"the session ended before the transcription of {item_id} was reported"
            reports.append(UsageReport(basis=Basis.UNSETTLED, model=model, object_id=item_id, faults=(fault,)))
        self._running.clear()
        self._awaited.clear()
        return tuple(reports)

    def _read(self, event: dict[str, object], length: int) -> tuple[SocketEvent, ...]:
        kind = event.get("type")
        if kind == "response.done":
            return self._response_done(_object(event.get("response")))
        if kind == "response.created":
            return self._response_started(_text(_object(event.get("response")).get("id")))
        if kind == _TRANSCRIBED:
            return self._item_transcribed(event)
        if kind == "error":
            return (WorkRejected(),)
        if kind in _SESSIONS:
            return self._session_changed(_object(event.get("session")))
        if kind == _NOT_TRANSCRIBED:
            self._awaited.pop(_text(event.get("item_id")), None)
        elif kind == _COMMITTED and self._transcription_model is not None:
            return self._transcription_started(_text(event.get("item_id")), self._transcription_model)
        elif isinstance(kind, str):
            self._count(kind, f'"response_id":"{_text(event.get("response_id"))}"', length)
        return ()

    def _session_changed(self, session: dict[str, object]) -> tuple[SocketEvent, ...]:
        self._model = _text(session.get("model")) or self._model
        self._transcription_model = next(iter(transcription_models(session)), None)
        before, self._spends = self._spends, self._possible_spends()
        return () if self._spends == before else (SessionChanged(self._spends),)

    def _possible_spends(self) -> tuple[Spend, ...]:
        spends = () if self._model is None else (realtime_spend(self._model),)
        if self._transcription_model is None:
            return spends
        return (*spends, transcription_spend(self._transcription_model, role=INPUT_TRANSCRIPTION))

    def _response_started(self, response_id: str) -> tuple[SocketEvent, ...]:
        if response_id in self._done or response_id in self._running:
            return ()
        self._running[response_id] = _Seen()
        return (WorkStarted(response_id),)

    def _transcription_started(self, item_id: str, model: str) -> tuple[SocketEvent, ...]:
        self._awaited[item_id] = model
        return (WorkStarted(item_id),)

    def _count(self, kind: str, prefix: str, length: int) -> None:
        if kind in _AUDIO_DELTAS:
            self._seen_in(prefix).audio += length
        elif kind in _TEXT_DELTAS:
            self._seen_in(prefix).text += max(_SHORTEST_TEXT, length - _TEXT_ENVELOPE)

    def _seen_in(self, prefix: str) -> _Seen:
        match = _RESPONSE_ID.search(prefix)
        return self._running.get(match[1], _Seen()) if match is not None else _Seen()

    def _response_done(self, response: dict[str, object]) -> tuple[SocketEvent, ...]:
        response_id = _text(response.get("id"))
        if response_id in self._done:
            return ()
        if response_id:
            self._done.add(response_id)
        seen = self._running.pop(response_id, _Seen())
        report = report_usage([response.get("usage")], model=self._model)
        if report is not None:
            return (UsageReported(replace(report, object_id=response_id or None)),)
        if response.get("status") == "failed" and not seen.audio and not seen.text:
            free = UsageReport(basis=Basis.FREE, model=self._model, object_id=response_id or None)
            return (UsageReported(free),)
        return (UsageReported(self._estimate(response_id, seen)),)

    def _item_transcribed(self, event: dict[str, object]) -> tuple[SocketEvent, ...]:
        item_id = _text(event.get("item_id"))
        key = (item_id, str(event.get("content_index")))
        model = self._awaited.pop(item_id, None) or self._transcription_model
        if key in self._transcribed:
            return ()
        self._transcribed.add(key)
        report = report_usage([event.get("usage")], model=model)
        if report is None:
            fault = f"the transcription of {item_id} was reported without usage"
            report = UsageReport(basis=Basis.UNSETTLED, model=model, faults=(fault,))
        return (UsageReported(replace(report, object_id=item_id or None)),)

    def _estimate(self, response_id: str, seen: _Seen) -> UsageReport:
        amounts = (
            (Meter.OUTPUT, tokens_of(seen.text)),
            (Meter.OUTPUT_AUDIO, -(-seen.audio // _CHARACTERS_PER_AUDIO_TOKEN)),
        )
        quantities = tuple(Quantity(meter, Decimal(amount)) for meter, amount in amounts if amount)
        return UsageReport(
            items=(UsageItem(quantities, model=self._model),),
            basis=Basis.ESTIMATED,
            model=self._model,
            object_id=response_id or None,
            estimate_method=ESTIMATE_METHOD,
            faults=(f"response {response_id} reported no usage; what it said was counted, its input is not known",),
        )


class _Seen:
    """Characters of a response's deltas."""

    __slots__ = ("audio", "text")

    def __init__(self) -> None:
        self.audio = 0
        self.text = 0


def transcription_models(session: dict[str, object]) -> tuple[str, ...]:
    """The models that transcribe the input of `session`, as its two shapes name them; none where nothing does."""
    current = _object(_object(_object(session.get("audio")).get("input")).get("transcription"))
    beta = _object(session.get("input_audio_transcription"))
    named = (_text(current.get("model")), _text(beta.get("model")))
    return tuple(dict.fromkeys(name for name in named if name))


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
