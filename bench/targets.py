"""What the server has to reach, as ratios within one run or as figures of its own, and whether it does."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.contestants import OURS
from bench.runner import Outcome


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for one figure of a part: `goal`, and a farther one, `stretch`.

    With `against` the figure counts as a multiple of that contestant's.  `least` says that more is better.
    """

    part: str
    figure: str
    goal: float
    stretch: float | None = None
    against: str | None = None
    least: bool = False

    @property
    def text(self) -> str:
        """The bound, as a person reads it."""
        sign, unit = ("≥" if self.least else "≤"), (f" x {self.against}" if self.against else "")
        far = f" ({self.stretch:g})" if self.stretch is not None else ""
        return f"{sign} {self.goal:g}{unit}{far}"

    def measured(self, results: dict[str, Outcome]) -> float | None:
        """The median of all rounds, or the ratio of medians; None where it was not measured."""
        mine = _median(results, self.part, OURS, self.figure)
        if mine is None or self.against is None:
            return mine
        base = _median(results, self.part, self.against, self.figure)
        return mine / base if base else None

    def verdict(self, value: float) -> str:
        """`stretch`, `met` or `missed`."""
        if self.stretch is not None and self._within(value, self.stretch):
            return "stretch"
        return "met" if self._within(value, self.goal) else "missed"

    def _within(self, value: float, bound: float) -> bool:
        return value >= bound if self.least else value <= bound


TARGETS = (
    Target("json-32", "requests_per_s", 0.06, 0.10, against="nginx", least=True),
    Target("json-32", "requests_per_s", 1.1, against="aiohttp", least=True),
    Target("json-32", "requests_per_s", 30, against="litellm", least=True),
    Target("sse-flood", "cpu_us_per_event", 1.5, 1.1, against="nginx"),
    Target("sse-flood", "events_per_s", 2, against="aiohttp", least=True),
    Target("sse-first", "added_p50_ms", 0.7, 0.35),
    Target("sse-paced", "added_p99_ms", 1.5, 0.6),
    Target("body-1mb", "requests_per_s", 0.25, 0.40, against="nginx", least=True),
    Target("stall", "grown_mb", 2, 1),
    Target("stall", "complete", 1, least=True),
    Target("abort", "p99_ms", 10, 2),
    Target("stress", "incomplete", 0),
    Target("stress", "streams_left_open", 0),
    *(
        target
        for part in ("streams-1000", "streams-5000", "streams-10000")
        for target in (Target(part, "errors", 0), Target(part, "kb_per_stream", 40, 25))
    ),
)


def table(results: dict[str, Outcome]) -> str:
    """Each target that was measured: the bound, the figure, and how it stands.  Markdown."""
    lines = ["| part | figure | target (stretch) | measured | |", "|---|---|---|---|---|"]
    for target in TARGETS:
        value = target.measured(results)
        if value is not None:
            lines.append(f"| {target.part} | {target.figure} | {target.text} | {value:.3g} | {target.verdict(value)} |")
    return "\n".join(lines)


def _median(results: dict[str, Outcome], part: str, contestant: str, figure: str) -> float | None:
    values = results.get(part, {}).get(contestant, {}).get(figure)
    return statistics.median(values) if values else None
