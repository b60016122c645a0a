"""Writes the audit line of a change that was made over REST."""

from __future__ import annotations

import logging
from dataclasses import dataclass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChangeSource:
    """The request that makes a change.

    Attributes:
        request_id: Its id in the log.
        actor: Who sent it: `admin`, or the user of an OAuth access token.
        peer: The address of its client.
    """

    request_id: str
    actor: str
    peer: str | None


def log_change(source: ChangeSource, action: str, subject: str, documents: tuple[object, object]) -> None:
    """Write the line `admin`.

    Args:
        source: The request.
        action: The kind of change, such as `access key created`.
        subject: The public id of the changed thing.
        documents: Its earlier and its new document, without secrets; None if there was none, or is none.
    """
    _log.info(
        "admin",
        extra={
            "request_id": source.request_id,
            "actor": source.actor,
            "peer": source.peer,
            "action": action,
            "subject": subject,
            "old": documents[0],
            "new": documents[1],
        },
    )
