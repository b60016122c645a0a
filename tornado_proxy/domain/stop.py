"""A stop: requests of a project, a participant or user, or an agent session are refused, and those under way ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Requester(Protocol):
    """Who makes a request, as far as stops concern it."""

    @property
    def project_id(self) -> str:
        """The id of the project."""

    @property
    def participant(self) -> str | None:
        """The name of a participant."""

    @property
    def user(self) -> str | None:
        """The subject of a user."""


@dataclass(frozen=True, slots=True)
class StopTarget:
    """The requests that a stop covers: those that match every member that is set; at least one is.

    Attributes:
        participant: The name of a participant or the subject of a user.
        agent_session: The session of an agent, as its client states it.
    """

    project_id: str | None = None
    participant: str | None = None
    agent_session: str | None = None

    def covers(self, requester: Requester, agent_session: str | None) -> bool:
        """Return True if a request of `requester` is covered."""
        return (
            self.project_id in (None, requester.project_id)
            and (self.participant is None or self.participant in (requester.participant, requester.user))
            and self.agent_session in (None, agent_session)
        )

    def __str__(self) -> str:
        named = (
            ("agent session", self.agent_session),
            ("participant", self.participant),
            ("project", self.project_id),
        )
        return " of ".join(f"{kind} {name}" for kind, name in named if name is not None)


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop that is in force.

    Attributes:
        id: A public id, `stop_...`.
        actor: Who has made it.
        created_at: When it was made, aware UTC.
        reason: A text for the clients, "" if there is none.
    """

    id: str
    target: StopTarget
    actor: str
    created_at: datetime
    reason: str = ""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.target} was stopped by {self.actor} at {self.created_at:%Y-%m-%dT%H:%M:%SZ}{reason}"
