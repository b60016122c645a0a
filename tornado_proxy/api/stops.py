"""The JSON documents of stops, for the admin port and the command line.  Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.ledger.rows import format_time


class _Creation(msgspec.Struct, forbid_unknown_fields=True):
    project_id: str | None = None
    participant: str | None = None
    agent_session: str | None = None
    reason: str = ""


def read_stop(body: bytes) -> tuple[StopTarget, str]:
    """Return the target and the reason of a new stop.

    Raises:
        InvalidBody: the document has another form.
    """
    try:
        document = msgspec.json.decode(body, type=_Creation)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBody(f"the body is not a valid document: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return StopTarget(document.project_id, document.participant, document.agent_session), document.reason


def show_stop(stop: Stop) -> dict[str, object]:
    """Return the document of a stop."""
    return {
        "id": stop.id,
        "project_id": stop.target.project_id,
        "participant": stop.target.participant,
        "agent_session": stop.target.agent_session,
        "reason": stop.reason,
        "actor": stop.actor,
        "created_at": format_time(stop.created_at),
    }


def show_stops(stops: Iterable[Stop]) -> dict[str, object]:
    """Return the document of all stops."""
    return {"stops": [show_stop(stop) for stop in stops]}
