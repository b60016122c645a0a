"""The targets of the server, as ratios within one run or as absolute figures, and their evaluation."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.contestants import DIRECT, OURS, WITH_BUDGET
from bench.report import format_number
from bench.runner import PartResult


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure of a part.

    Attributes:
        goal: the bound.
        stretch: a harder bound.
        against: the contestant whose figure is the unit; None for an absolute bound.
        of: the contestant that has the target.
        higher_is_better: True for a lower bound, False for an upper one.
    """

    part: str
    figure: str
    goal: float
    stretch: float | None = None
    against: str | None = None
    higher_is_better: bool = False
    of: str = OURS

    @property
    def text(self) -> str:
        """The bound as text: `≤ 1.5 x nginx (1.1)`."""
        sign, unit = ("≥" if self.higher_is_better else "≤"), (f" x {self.against}" if self.against else "")
        stretch = f" ({self.stretch:g})" if self.stretch is not None else ""
        return f"{sign} {self.goal:g}{unit}{stretch}"

    def find_value(self, results: dict[str, PartResult]) -> float | None:
        """Return the median of all rounds, or the ratio of medians; None if it was not measured."""
        measured = self.find_median(results, self.of)
        if measured is None or self.against is None:
            return measured
        base = self.find_median(results, self.against)
        return measured / base if base else None

    def find_median(self, results: dict[str, PartResult], contestant: str) -> float | None:
        """Return the median of a contestant's rounds; None if it was not measured."""
        values = results.get(self.part, {}).get(contestant, {}).get(self.figure)
        return statistics.median(values) if values else None

    def judge(self, value: float) -> str:
        """Return `stretch`, `met` or `missed`."""
        if self.stretch is not None and self._is_within(value, self.stretch):
            return "stretch"
        return "met" if self._is_within(value, self.goal) else "missed"

    def _is_within(self, value: float, bound: float) -> bool:
        return value >= bound if self.higher_is_better else value <= bound


#: Ratios to nginx and aiohttp hold on any machine; delays, memory and counts are absolute.
TARGETS = (
    Target("json-32", "cpu_us", 1.5, 1.0, against="aiohttp"),
    Target("json-32", "requests_per_s", 30, 45, against="litellm", higher_is_better=True),
    Target("json-budget", "cpu_us", 1.05, against=OURS, of=WITH_BUDGET),
    Target("messages-32", "requests_per_s", 1, against="litellm", higher_is_better=True),
    # Milliseconds that the relay adds; a direct request is subtracted.
    Target("sse-first", "added_p50_ms", 1.3, 1.0, against="aiohttp"),
    Target("sse-paced", "added_p99_ms", 1.5, 0.6),
    Target("sse-flood", "cpu_us_per_event", 1.5, 1.1, against="nginx"),
    Target("sse-bursts", "cpu_us_per_event", 0.7, 0.5, against="aiohttp"),
    Target("body-1mb", "cpu_us", 1.3, 1.0, against="aiohttp"),
    Target("ws-flood", "cpu_us_per_message", 1.5, 1.0, against="aiohttp"),
    Target("ws-1000", "kb_per_session", 25),
    Target("ws-1000", "errors", 0),
    Target("stall", "grown_mb", 2, 1),
    Target("stall", "complete", 1, higher_is_better=True),
    Target("abort", "p99_ms", 10, 2),
    Target("stress", "incomplete", 0),
    Target("stress", "streams_left_open", 0),
    *(
        target
        for part in ("streams-1000", "streams-5000", "streams-10000")
        for target in (Target(part, "errors", 0), Target(part, "kb_per_stream", 22, 18))
    ),
)


def make_table(results: dict[str, PartResult]) -> str:
    """Return a Markdown table of the measured targets: bound, figure, verdict, and each contestant's median."""
    contestants = _list_contestants(results)
    lines = [
        f"| part | figure | target (stretch) | measured | | {' | '.join(contestants)} |",
        "|---" * (len(contestants) + 5) + "|",
    ]
    for target in TARGETS:
        # Parts that were not selected have no value.
        value = target.find_value(results)
        if value is not None:
            medians = " | ".join(_format(target.find_median(results, contestant)) for contestant in contestants)
            verdict = target.judge(value)
            lines.append(f"| {target.part} | {target.figure} | {target.text} | {value:.3g} | {verdict} | {medians} |")
    return "\n".join(lines)


def _list_contestants(results: dict[str, PartResult]) -> list[str]:
    """Return the names of all relays that were measured, in the order of the parts."""
    return [name for name in dict.fromkeys(name for part in results.values() for name in part) if name != DIRECT]


def _format(median: float | None) -> str:
    return "-" if median is None else format_number(median)
