"""The spend brake as values: how many USD may be spent in a minute, and a limit that was passed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class BrakeLimits:
    """USD that a project may spend in a minute, and each of its participants and users; None without a limit."""

    project: Decimal | None = None
    per_participant: Decimal | None = None

    def __bool__(self) -> bool:
        """Return True if there is a limit."""
        return self.project is not None or self.per_participant is not None


@dataclass(frozen=True, slots=True)
class Brake:
    """A project, or one of its participants or users, has spent more than `limit` USD in a minute.

    Attributes:
        id: A random id; the stop that follows has the same one.
        participant: The name of the participant or user; None if the limit is that of the whole project.
        spent: The spend, USD.
    """

    id: str
    project_id: str
    participant: str | None
    spent: Decimal
    limit: Decimal
