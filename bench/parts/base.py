"""The frame of a part: which figures it gives, and what it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bench.contestants import OURS, Contestant, Place

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one contestant: where, how long, the provider's port.

    `scale` is the part of a subject's full size, 1 at most: fewer streams, shorter stalls.
    """

    place: Place
    contestant: Contestant
    seconds: int
    provider_port: int
    scale: float = 1.0

    def scaled(self, full: int) -> int:
        """That much of `full`, at least 2."""
        return max(2, round(full * self.scale))


@dataclass(frozen=True, slots=True)
class Part:
    """A subject.

    `measure` runs once a round and contestant.  `provider_processes` is 1 where the provider is asked afterwards what
    it saw.  `fresh` starts each contestant anew for each round, where memory counts.
    """

    name: str
    title: str
    measure: Callable[[Round], Awaitable[Figures]]
    contestants: tuple[str, ...] = (OURS, "nginx", "aiohttp", "litellm")
    provider_processes: int = 2
    fresh: bool = False
    rounds: int | None = None
    added: tuple[str, ...] = ()
    needs: str | None = None
