"""What a client's realtime event would spend money on, before it is forwarded; and how to say no to it.

Only events that name a model, or send a kind of content that has its own price, are of interest.  An event that two
JSON readers could read differently (a member twice) is refused, so that no model can hide behind another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tornado_proxy.domain.errors import InvalidBody, RequestError
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.audio.transcription_models import transcription_spend
from tornado_proxy.providers.openai.realtime.session import INPUT_TRANSCRIPTION, realtime_spend, transcription_models

_PICTURES = frozenset({Meter.INPUT_IMAGE, Meter.CACHED_INPUT_IMAGE})


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """`spends` are to be admitted before the event goes on; most events have none."""

    kind: str
    event_id: str | None
    spends: tuple[Spend, ...] = ()


def read_client_event(text: str | bytes, session_model: str | None) -> ClientEvent:
    """Read one text frame of a client.  `session_model` is the model that answers in this session.

    Raises:
        InvalidBody: not a JSON object with a `type`, or a member is given twice.
    """
    event = read_object(text)
    kind, event_id = event.get("type"), event.get("event_id")
    if not isinstance(kind, str):
        raise InvalidBody("a realtime event needs a type", param="type")
    return ClientEvent(kind, event_id if isinstance(event_id, str) else None, _spends(kind, event, session_model))


def error_event(error: RequestError, event_id: str | None, own_id: str) -> str:
    """The event that tells the client why its event was not forwarded.

    `event_id` is that of the client's event, `own_id` a fresh one for this event.

    Source: OpenAI API reference, realtime server events, `error`.
    """
    return json.dumps(
        {
            "type": "error",
            "event_id": own_id,
            "error": {
                "type": error.kind,
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "event_id": event_id,
            },
        },
        separators=(",", ":"),
    )


def _spends(kind: str, event: dict[str, object], session_model: str | None) -> tuple[Spend, ...]:
    if kind in ("session.update", "transcription_session.update"):
        return session_spends(event.get("session"))
    if kind == "response.create":
        return (*session_spends(event.get("response")), *_picture_spends(event, session_model))
    if kind == "conversation.item.create":
        return _picture_spends(event, session_model)
    return ()


def session_spends(session: object) -> tuple[Spend, ...]:
    """What a session's config can be charged for: its model, and the one that transcribes what is heard.

    Raises:
        InvalidBody: a model is no text.
    """
    if not isinstance(session, dict):
        return ()
    spends: list[Spend] = []
    model = session.get("model")
    if isinstance(model, str):
        spends.append(realtime_spend(model))
    elif model is not None:
        raise InvalidBody("model must be a string", param="model")
    heard = transcription_models(session)
    return (*spends, *(transcription_spend(one, role=INPUT_TRANSCRIPTION) for one in heard))


def _picture_spends(event: dict[str, object], session_model: str | None) -> tuple[Spend, ...]:
    if session_model is None or not _has_picture(event):
        return ()
    return (Spend(session_model, _PICTURES),)


def _has_picture(event: dict[str, object]) -> bool:
    response = event.get("response")
    listed = response.get("input") if isinstance(response, dict) else None
    items = [event.get("item"), *(listed if isinstance(listed, list) else ())]
    contents = [item["content"] for item in items if isinstance(item, dict) and isinstance(item.get("content"), list)]
    return any(isinstance(part, dict) and part.get("type") == "input_image" for parts in contents for part in parts)


def read_object(text: str | bytes) -> dict[str, object]:
    """One JSON object in which no member stands twice, at any depth.

    Raises:
        InvalidBody: it is something else.
    """
    try:
        event = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidBody("this must be one JSON object") from error
    if not isinstance(event, dict):
        raise InvalidBody("this must be one JSON object")
    return event


def _once(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        raise InvalidBody("a member stands twice; send it once")
    return found
