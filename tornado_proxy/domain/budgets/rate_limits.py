"""Limits of how much runs in a minute, or at the same time, and the claims of a request on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from tornado_proxy.domain.budgets.brake import BrakeLimits


class RateUnit(StrEnum):
    """The unit of a limit: the first two are limited per minute, streams are limited at the same time."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    STREAMS = "streams"


#: A limit of each unit that is limited.
UnitLimits = Mapping[RateUnit, int]


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """The limits of a project, and those of each of its participants and users.

    `brakes` limit what they spend in a minute: a request is not refused, but a stop follows.
    """

    project: UnitLimits = field(default_factory=dict)
    per_participant: UnitLimits = field(default_factory=dict)
    brakes: BrakeLimits = field(default_factory=BrakeLimits)

    def __bool__(self) -> bool:
        """Return True if requests, tokens or streams are limited."""
        return bool(self.project or self.per_participant)

    def limits_unit(self, unit: RateUnit) -> bool:
        """Return True if the unit has a limit."""
        return unit in self.project or unit in self.per_participant


class RateClaim(msgspec.Struct, frozen=True):
    """A request's claim on one limit: `units` of `limit`.  `subject` is "" for the limit of a whole project."""

    project_id: str
    subject: str
    unit: RateUnit
    limit: int
    units: int


@dataclass(frozen=True, slots=True)
class RateState:
    """A limit as a refusal states it.

    Attributes:
        remaining: Units that can be used now.
        wait_s: Seconds until the refused request fits, 0 if it fits now; None if only ends of streams make room.
        reset_s: Seconds until the whole limit can be used.
    """

    claim: RateClaim
    remaining: int
    wait_s: float | None
    reset_s: float


@dataclass(frozen=True, slots=True)
class RateRefusal:
    """A limit does not admit a request; `states` are those of all of its limits, the one that refuses first."""

    states: tuple[RateState, ...]

    @property
    def state(self) -> RateState:
        """The state of the limit that refuses."""
        return self.states[0]
