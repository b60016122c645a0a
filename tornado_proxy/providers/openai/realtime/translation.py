"""/v1/realtime/translations: speech in, translated speech out, charged by the length of the session's audio.

No event states usage.  The charge is the largest `elapsed_ms` of the provider's events or, without one, the length of
the audio that the client sent.  A transcription of the input is a second meter, by the same length.

    session.created                     -> WorkStarted: the session is the work
    session.updated                     -> SessionChanged, if the spends differ
    session.input_audio_buffer.append   -> counts seconds sent
    *.delta                             -> elapsed_ms
    session.closed, or the end          -> one report

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
from tornado_proxy.providers.openai.audio.transcription_models import is_priced_by_length
from tornado_proxy.providers.openai.realtime.client_events import error_event
from tornado_proxy.providers.openai.realtime.session_config import input_transcription_spend, transcription_models
from tornado_proxy.providers.openai.realtime.websocket import query_argument
from tornado_proxy.providers.shared.json_values import as_text, decode_object
from tornado_proxy.providers.shared.strict_json import decode_strict_object

_PATH = "/v1/realtime/translations"

#: Base64 characters of one second of input audio: 16 bits at 24 kHz, mono (OpenAI guide "Realtime translation"), are
#: 48,000 bytes, and four characters encode three bytes.
_CHARACTERS_PER_SECOND = 64_000

#: The time of an event; found without parsing the audio around it.  Base64 contains no quotation marks.
_ELAPSED = re.compile(rb'"elapsed_ms"\s*:\s*(\d{1,9})')


def translation_spend(model: str) -> Spend:
    """Return the spend of a session with `model`."""
    return Spend(model, frozenset({Meter.SESSION_SECONDS}))


def parse_translation_frame(frame: bytes, model: str | None) -> ClientFrame:
    """Read a client's event before it goes to the provider.

    Raises:
        InvalidBody: the frame is not a JSON object, or it has a repeated member.
        BadRequest: it asks for a transcription without a way to meter it.
    """
    event = decode_strict_object(frame)
    audio, session = event.get("audio"), event.get("session")
    return ClientFrame(
        as_text(event.get("event_id")),
        translation_spends(session) if isinstance(session, dict) else (),
        audio_characters=len(audio) if isinstance(audio, str) else 0,
    )


class TranslationReader:
    """A SocketReader of one session."""

    references: tuple[str, ...] = ()

    def __init__(self, model: str) -> None:
        self.model: str | None = model
        self._transcription_models: tuple[str, ...] = ()
        self._session_id: str | None = None
        self._ended = False
        self._sent_characters = 0
        self._elapsed_ms = 0

    @property
    def working(self) -> bool:
        """False: a session can end at any time, and its usage is known then."""
        return False

    @property
    def spends(self) -> tuple[Spend, ...]:
        """Spends of the session's model and of its transcription models."""
        own_spends = () if self.model is None else (translation_spend(self.model),)
        return (*own_spends, *map(input_transcription_spend, self._transcription_models))

    def accept_frame(self, frame: ClientFrame) -> ClientFrame:
        """Count the audio of a frame, and return the frame."""
        self._sent_characters += frame.audio_characters
        return frame

    def refusal(self, error: RequestError, frame: ClientFrame, event_id: str) -> str:
        """Return an `error` event with the id of the client's event."""
        return error_event(error, frame.event_id, event_id)

    def feed_server_frame(self, frame: str | bytes) -> tuple[SocketEvent, ...]:
        """Read a provider's frame; return its events in order.  Usage is reported at the end of the session."""
        data = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        for match in _ELAPSED.finditer(data):
            self._elapsed_ms = max(self._elapsed_ms, int(match[1]))
        # Skip events without a type of interest; most are large audio deltas.
        if b'"session.' not in data and b'"error"' not in data:
            return ()
        event = decode_object(data) or {}
        kind, session = event.get("type"), event.get("session")
        if kind in ("session.created", "session.updated") and isinstance(session, dict):
            return self._change_session(session)
        if kind == "error":
            return (WorkRejected(),)
        return tuple(UsageReported(report) for report in self.close()) if kind == "session.closed" else ()

    def close(self) -> tuple[UsageReport, ...]:
        """End the session; return its report once, none for a session that the provider did not create."""
        if self._session_id is None or self._ended:
            return ()
        self._ended = True
        seconds = self._charged_seconds()
        items = [UsageItem((Quantity(Meter.SESSION_SECONDS, seconds),), model=self.model)]
        for model in self._transcription_models:
            items.append(UsageItem((Quantity(Meter.AUDIO_SECONDS, seconds),), model=model))
        return (
            UsageReport(
                items=tuple(items),
                basis=Basis.INFERRED,
                raw=json.dumps({"elapsed_ms": self._elapsed_ms, "sent_base64_characters": self._sent_characters}),
                model=self.model,
                object_id=self._session_id,
            ),
        )

    def _charged_seconds(self) -> Decimal:
        if self._elapsed_ms:
            return Decimal(self._elapsed_ms) / 1000
        return Decimal(self._sent_characters) / _CHARACTERS_PER_SECOND

    def _change_session(self, session: dict[str, object]) -> tuple[SocketEvent, ...]:
        before = self.spends
        self.model = as_text(session.get("model")) or self.model
        self._transcription_models = transcription_models(session)
        events: list[SocketEvent] = []
        if self._session_id is None:
            self._session_id = as_text(session.get("id")) or "session"
            events.append(WorkStarted(self._session_id))
        if self.spends != before:
            events.append(SessionChanged(self.spends))
        return tuple(events)


def translation_spends(session: dict[str, object]) -> tuple[Spend, ...]:
    """Return the spends of a session's configuration.

    Raises:
        BadRequest: it asks for a transcription without a way to meter it.
    """
    models = transcription_models(session)
    for transcription_model in models:
        if not is_priced_by_length(transcription_model):
            raise BadRequest(
                f"{transcription_model[:100]} is charged by tokens, which a translation session does not state; "
                "use a model that is charged by the minute",
                param="model",
            )
    model = as_text(session.get("model"))
    own_spends = () if model is None else (translation_spend(model),)
    return (*own_spends, *map(input_transcription_spend, models))


def open_translation(query: str, subprotocols: tuple[str, ...]) -> TranslationReader:
    """Return the reader of a session that is opened with `query` (raw, without the question mark).

    Raises:
        BadRequest: the query names no model, or two.
    """
    model = query_argument(query, "model")
    if model is None:
        raise BadRequest(f"the query names no model; connect to {_PATH}?model=...", param="model")
    return TranslationReader(model)


TRANSLATION_SOCKET = WebSocketEndpoint(_PATH, open_translation, parse_translation_frame, session_keys=True)
