"""A part of the benchmark: its figures and its requirements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bench.contestants import OURS, WITH_BUDGET, WITH_BUDGETS, WITH_LIMITS, WITH_TELEMETRY, Contestant, Workspace

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """A measurement of a contestant.

    Attributes:
        seconds: the length of the measurement.
        scale: the factor for the number of streams and the length of stalls, at most 1.
    """

    workspace: Workspace
    contestant: Contestant
    seconds: float
    provider_port: int
    scale: float = 1.0

    def scaled(self, full: int) -> int:
        """Return `full` times the scale, at least 2."""
        return max(2, round(full * self.scale))


@dataclass(frozen=True, slots=True)
class Part:
    """A part.

    Attributes:
        measure: called once for each round and contestant.
        contestants: the contestants that can run the part.
        provider_processes: 1 if the part reads the provider's state, which each process has for itself.
        fresh: start each contestant anew for each round, so that its memory is not that of an earlier round.
        rounds: the maximum of rounds.
        added: figures of which the value without a relay is subtracted, as `added_...`.
        needs: a program that must be installed.
    """

    name: str
    title: str
    measure: Callable[[Round], Awaitable[Figures]]
    contestants: tuple[str, ...] = (
        OURS,
        WITH_BUDGET,
        WITH_BUDGETS,
        WITH_LIMITS,
        WITH_TELEMETRY,
        "nginx",
        "aiohttp",
        "meshagent",
        "litellm",
    )
    provider_processes: int = 2
    fresh: bool = False
    rounds: int | None = None
    added: tuple[str, ...] = ()
    needs: str | None = None
