"""/v1/realtime/translations: speech in, translated speech out, charged by the length of the session's audio.

No event states usage.  What counts is the largest `elapsed_ms` that the provider has named, or, where it names none,
the length of the audio that the client has sent.  A transcription of the input is a second meter, by the same length.

    session.created                     -> the session is work from here on
    session.input_audio_buffer.append   -> seconds sent
    *.delta                             -> elapsed_ms
    session.closed, or the end          -> report, once

Source: OpenAI guide "Realtime translation".
"""

from __future__ import annotations

import json
import re
from decimal import Decimal

from tornado_proxy.domain.errors import BadRequest, RequestError
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.contract import (
    ClientFrame,
    SessionChanged,
    SocketEvent,
    UsageReported,
    WebSocketEndpoint,
    WorkRejected,
    WorkStarted,
)
from tornado_proxy.providers.openai.audio.transcription_models import priced_by_length, transcription_spend
from tornado_proxy.providers.openai.realtime.client_events import error_event, read_object
from tornado_proxy.providers.openai.realtime.session import INPUT_TRANSCRIPTION, transcription_models
from tornado_proxy.providers.openai.realtime.websocket import query_argument
from tornado_proxy.providers.openai.shared.usage_report import decode_object

_PATH = "/v1/realtime/translations"

#: Input audio: 16 bit at 24 kHz, mono; four characters of base64 are three bytes.
_CHARACTERS_PER_SECOND = 64_000

#: Where an event's time stands; read without parsing the audio around it.
_ELAPSED = re.compile(rb'"elapsed_ms"\s*:\s*(\d{1,9})')


def translation_spend(model: str) -> Spend:
    """What a session with `model` can cost."""
    return Spend(model, frozenset({Meter.SESSION_SECONDS}))


class TranslationReader:
    """A SocketReader of one session."""

    references: tuple[str, ...] = ()

    def __init__(self, model: str) -> None:
        self.model: str | None = model
        self._transcribers: tuple[str, ...] = ()
        self._session_id: str | None = None
        self._ended = False
        self._sent_characters = 0
        self._elapsed_ms = 0

    @property
    def working(self) -> bool:
        """False: a session that is only listening may end at any time; what it used is known then."""
        return False

    @property
    def spends(self) -> tuple[Spend, ...]:
        """The session's model, and those that transcribe its input."""
        heard = (transcription_spend(one, role=INPUT_TRANSCRIPTION) for one in self._transcribers)
        return (*(() if self.model is None else (translation_spend(self.model),)), *heard)

    def read_client_frame(self, frame: str | bytes) -> ClientFrame:
        """Look at a client's event.

        Raises:
            InvalidBody: not a JSON object, or a member is given twice.
            BadRequest: it asks for a transcription whose usage nobody would state.
        """
        event = read_object(frame)
        named = event.get("event_id")
        event_id = named if isinstance(named, str) else None
        audio, session = event.get("audio"), event.get("session")
        if isinstance(audio, str):
            self._sent_characters += len(audio)
        if not isinstance(session, dict):
            return ClientFrame(event_id)
        return ClientFrame(event_id, translation_spends(session))

    def refusal(self, error: RequestError, frame: ClientFrame, own_id: str) -> str:
        """An `error` event with the client's own event id."""
        return error_event(error, frame.event_id, own_id)

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read an event of the provider; its usage is reported when the session is closed."""
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        for found in _ELAPSED.finditer(data):
            self._elapsed_ms = max(self._elapsed_ms, int(found[1]))
        if b'"session.' not in data and b'"error"' not in data:
            return ()
        event = decode_object(data) or {}
        kind, session = event.get("type"), event.get("session")
        if kind in ("session.created", "session.updated") and isinstance(session, dict):
            return self._session_changed(session)
        if kind == "error":
            return (WorkRejected(),)
        return tuple(UsageReported(report) for report in self.close()) if kind == "session.closed" else ()

    def close(self) -> tuple[UsageReport, ...]:
        """What the session came to; nothing for one that never began."""
        if self._session_id is None or self._ended:
            return ()
        self._ended = True
        seconds = self._seconds()
        readings = [UsageItem((Quantity(Meter.SESSION_SECONDS, seconds),), model=self.model)]
        readings += [UsageItem((Quantity(Meter.AUDIO_SECONDS, seconds),), model=one) for one in self._transcribers]
        return (
            UsageReport(
                items=tuple(readings),
                basis=Basis.INFERRED,
                raw=json.dumps({"elapsed_ms": self._elapsed_ms, "sent_base64_characters": self._sent_characters}),
                model=self.model,
                object_id=self._session_id,
            ),
        )

    def _seconds(self) -> Decimal:
        if self._elapsed_ms:
            return Decimal(self._elapsed_ms) / 1000
        return Decimal(self._sent_characters) / _CHARACTERS_PER_SECOND

    def _session_changed(self, session: dict[str, object]) -> tuple[SocketEvent, ...]:
        before = self.spends
        model, session_id = session.get("model"), session.get("id")
        self.model = model if isinstance(model, str) and model else self.model
        self._transcribers = transcription_models(session)
        events: list[SocketEvent] = []
        if self._session_id is None:
            self._session_id = session_id if isinstance(session_id, str) and session_id else "session"
            events.append(WorkStarted(self._session_id))
        if self.spends != before:
            events.append(SessionChanged(self.spends))
        return tuple(events)


def translation_spends(session: dict[str, object]) -> tuple[Spend, ...]:
    """What a session's config can be charged for.

    Raises:
        BadRequest: it asks for a transcription whose usage nobody would state.
    """
    heard = transcription_models(session)
    for one in heard:
        if not priced_by_length(one):
            raise BadRequest(
                f"{one[:100]} is charged by tokens, which a translation session does not state; "
                "use a model that is charged by the minute",
                param="model",
            )
    model = session.get("model")
    own = (translation_spend(model),) if isinstance(model, str) else ()
    return (*own, *(transcription_spend(one, role=INPUT_TRANSCRIPTION) for one in heard))


def open_translation(query: str, subprotocols: tuple[str, ...]) -> TranslationReader:
    """The reader of a session that is opened with `query` (raw, without the question mark).

    Raises:
        BadRequest: it names no model, or two.
    """
    model = query_argument(query, "model")
    if model is None:
        raise BadRequest(f"the query names no model; connect to {_PATH}?model=...", param="model")
    return TranslationReader(model)


TRANSLATION_SOCKET = WebSocketEndpoint(_PATH, open_translation, session_keys=True)
