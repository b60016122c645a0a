"""The targets of the server, as ratios within one run or as absolute figures, and their evaluation."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.contestants import OURS
from bench.runner import PartResult


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure of a part.

    Attributes:
        goal: the bound.
        stretch: a harder bound.
        against: the contestant whose figure is the unit; None for an absolute bound.
        higher_is_better: True for a lower bound, False for an upper one.
    """

    part: str
    figure: str
    goal: float
    stretch: float | None = None
    against: str | None = None
    higher_is_better: bool = False

    @property
    def text(self) -> str:
        """The bound as text: `≤ 1.5 x nginx (1.1)`."""
        sign, unit = ("≥" if self.higher_is_better else "≤"), (f" x {self.against}" if self.against else "")
        stretch = f" ({self.stretch:g})" if self.stretch is not None else ""
        return f"{sign} {self.goal:g}{unit}{stretch}"

    def find_value(self, results: dict[str, PartResult]) -> float | None:
        """Return the median of all rounds, or the ratio of medians; None if it was not measured."""
        ours = _median(results, self.part, OURS, self.figure)
        if ours is None or self.against is None:
            return ours
        base = _median(results, self.part, self.against, self.figure)
        return ours / base if base else None

    def judge(self, value: float) -> str:
        """Return `stretch`, `met` or `missed`."""
        if self.stretch is not None and self._is_within(value, self.stretch):
            return "stretch"
        return "met" if self._is_within(value, self.goal) else "missed"

    def _is_within(self, value: float, bound: float) -> bool:
        return value >= bound if self.higher_is_better else value <= bound


#: Ratios to nginx and aiohttp hold on any machine; delays, memory and counts are absolute.
TARGETS = (
    Target("json-32", "requests_per_s", 0.06, 0.10, against="nginx", higher_is_better=True),
    Target("json-32", "requests_per_s", 1.1, against="aiohttp", higher_is_better=True),
    Target("json-32", "requests_per_s", 30, against="litellm", higher_is_better=True),
    Target("sse-flood", "cpu_us_per_event", 1.5, 1.1, against="nginx"),
    Target("sse-flood", "events_per_s", 2, against="aiohttp", higher_is_better=True),
    # Milliseconds that the relay adds; a direct request is subtracted.
    Target("sse-first", "added_p50_ms", 0.7, 0.35),
    Target("sse-paced", "added_p99_ms", 1.5, 0.6),
    Target("body-1mb", "requests_per_s", 0.25, 0.40, against="nginx", higher_is_better=True),
    Target("stall", "grown_mb", 2, 1),
    Target("stall", "complete", 1, higher_is_better=True),
    Target("abort", "p99_ms", 10, 2),
    Target("stress", "incomplete", 0),
    Target("stress", "streams_left_open", 0),
    *(
        target
        for part in ("streams-1000", "streams-5000", "streams-10000")
        for target in (Target(part, "errors", 0), Target(part, "kb_per_stream", 40, 25))
    ),
)


def make_table(results: dict[str, PartResult]) -> str:
    """Return a Markdown table of the measured targets: bound, figure and verdict."""
    lines = ["| part | figure | target (stretch) | measured | |", "|---|---|---|---|---|"]
    for target in TARGETS:
        # Parts that were not selected have no value.
        value = target.find_value(results)
        if value is not None:
            lines.append(f"| {target.part} | {target.figure} | {target.text} | {value:.3g} | {target.judge(value)} |")
    return "\n".join(lines)


def _median(results: dict[str, PartResult], part: str, contestant: str, figure: str) -> float | None:
    values = results.get(part, {}).get(contestant, {}).get(figure)
    return statistics.median(values) if values else None
