"""Reads the spends of a client's realtime event before it is forwarded, and writes the error event of a rejected one.

Only events that name a model, or contain content with a price of its own, have spends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tornado_proxy.domain.errors import InvalidBody, RequestError
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.errors import show_error
from tornado_proxy.providers.openai.realtime.session_config import session_spends
from tornado_proxy.providers.openai.request_members import REALTIME_RULES
from tornado_proxy.providers.shared.body_walk import add_findings, walk_content
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text
from tornado_proxy.providers.shared.strict_json import decode_strict_object

#: Events in which the provider reads models and ids of objects.  Audio, the bulk of a session, is in others.
_EVENTS_WITH_NAMES = frozenset(
    {"session.update", "transcription_session.update", "response.create", "conversation.item.create"}
)

_IMAGE_METERS = frozenset({Meter.INPUT_IMAGE, Meter.CACHED_INPUT_IMAGE})


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """`spends` and `references` are admitted before the event is forwarded; most events have none."""

    kind: str
    event_id: str | None
    spends: tuple[Spend, ...] = ()
    references: tuple[str, ...] = ()


def read_client_event(frame: str | bytes, session_model: str | None) -> ClientEvent:
    """Parse one text frame of a client.  `session_model` is the model of the session's responses.

    Raises:
        InvalidBody: the frame is not a JSON object with a `type`, or it has a repeated member.
    """
    event = decode_strict_object(frame)
    kind = event.get("type")
    if not isinstance(kind, str):
        raise InvalidBody('"type" is missing; send the event type, such as response.create', param="type")
    spends = _spends_of(kind, event, session_model)
    if kind not in _EVENTS_WITH_NAMES:
        return ClientEvent(kind, as_text(event.get("event_id")), spends)
    facts = add_findings(RequestFacts(spends=spends), walk_content(event, REALTIME_RULES))
    return ClientEvent(kind, as_text(event.get("event_id")), spends, facts.references)


def error_event(error: RequestError, client_event_id: str | None, event_id: str) -> str:
    """Return the event that tells the client why its event was rejected; `event_id` is a new id for it.

    Source: OpenAI API reference, realtime server events, `error`.
    """
    return json.dumps(
        {
            "type": "error",
            "event_id": event_id,
            "error": {**show_error(error), "event_id": client_event_id},
        },
        separators=(",", ":"),
    )


def _spends_of(kind: str, event: dict[str, object], session_model: str | None) -> tuple[Spend, ...]:
    if kind in ("session.update", "transcription_session.update"):
        return session_spends(event.get("session"))
    if kind == "response.create":
        # A response can override the session's model and bring input of its own.
        return (*session_spends(event.get("response")), *_image_spends(event, session_model))
    if kind == "conversation.item.create":
        return _image_spends(event, session_model)
    return ()


def _image_spends(event: dict[str, object], session_model: str | None) -> tuple[Spend, ...]:
    if session_model is None or not _contains_image(event):
        return ()
    return (Spend(session_model, _IMAGE_METERS),)


def _contains_image(event: dict[str, object]) -> bool:
    items = as_objects([event.get("item")]) + as_objects(as_object(event.get("response")).get("input"))
    parts = (part for item in items for part in as_objects(item.get("content")))
    return any(part.get("type") == "input_image" for part in parts)
