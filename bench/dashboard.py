"""Measure how much the dashboard of `tornado-proxy local` delays a stream.

    python -m bench.dashboard [--rounds 7] [--seconds 4] [--streams 10] [--gap-us 10000]

Two local proxies run in terminals of 80 by 24 in front of the same provider: one prints lines, one shows the dashboard.
They are measured in turn, with `streams` streams that have an event every `gap_us` microseconds.  A gap is the time
between two reads of a stream that bring events; the provider's own gaps are measured too, as `direct`.  The figures are
the medians of the rounds.  The exit status is 1 if the p99 gap with the dashboard is twice that without it, or more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.contestants import Contestant
from bench.load.stream import Stream, choose_source_address
from bench.machine import read_cpu_s
from bench.processes import running_process, wait_for_text
from tests.harness import PROJECT
from tests.local.machine import Machine
from tests.local.terminal import Terminal, in_terminal

DIRECT, LINES, DASHBOARD = "direct", "lines", "dashboard"

#: The p99 gap with the dashboard must be below this many times the one without it.
MAX_RATIO = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """The streams of a round: how many, the microseconds between events, and the seconds that they take."""

    streams: int
    gap_us: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The gaps of a round in milliseconds, and the CPU time of the relay and the dashboard, in cores."""

    p50_ms: float
    p99_ms: float
    longest_ms: float
    relay_cores: float
    dashboard_cores: float


class GapStream(Stream):
    """A stream that notes the times between reads that bring events, in nanoseconds."""

    def __init__(self, contestant: Contestant, gaps_ns: list[int]) -> None:
        super().__init__(contestant)
        self._gaps_ns = gaps_ns
        self._last_ns = 0

    def buffer_updated(self, nbytes: int) -> None:
        before = self.events
        super().buffer_updated(nbytes)
        if self.events > before:
            now = time.monotonic_ns()
            if before:
                self._gaps_ns.append(now - self._last_ns)
            self._last_ns = now


async def measure(contestant: Contestant, load: Load) -> Figures:
    """Return the figures of one round."""
    gaps_ns: list[int] = []
    pids = contestant.pids
    before_s = [read_cpu_s([pid]) for pid in pids]
    streams = [await _start_stream(contestant, number, gaps_ns, load) for number in range(load.streams)]
    complete = await asyncio.wait_for(asyncio.gather(*(stream.ended for stream in streams)), load.seconds + 60)
    used = [(read_cpu_s([pid]) - cpu_s) / load.seconds for pid, cpu_s in zip(pids, before_s, strict=True)]
    for stream in streams:
        stream.disconnect()
    if not all(complete):
        raise RuntimeError(f"{contestant.name} broke a stream")
    gaps_ms = sorted(gap / 1e6 for gap in gaps_ns)
    return Figures(statistics.median(gaps_ms), gaps_ms[len(gaps_ms) * 99 // 100], gaps_ms[-1], *(*used, 0.0, 0.0)[:2])


async def _start_stream(contestant: Contestant, number: int, gaps_ns: list[int], load: Load) -> Stream:
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: GapStream(contestant, gaps_ns),
        contestant.host,
        contestant.port,
        local_addr=(choose_source_address(number), 0),
    )
    stream.request_stream(f"events={load.seconds * 1_000_000 // load.gap_us} gap_us={load.gap_us}")
    # The starts are spread over one gap, so that the events of all streams are too.
    await asyncio.sleep(load.gap_us / 1e6 / load.streams)
    return stream


@contextlib.contextmanager
def running_contestants(folder: Path) -> Iterator[list[Contestant]]:
    """Run the provider, and both local proxies in front of it."""
    log = folder / "provider.log"
    with running_process([sys.executable, "-m", "bench.provider"], frozenset(range(256)), log) as provider:
        port = int(wait_for_text(provider, log, r"(\d+)"))
        with (
            _running_local(folder / LINES, port, "--no-tui") as lines,
            _running_local(folder / DASHBOARD, port) as dashboard,
        ):
            dashboard.wait_for(lambda text: f"to http://127.0.0.1:{port}" in text)
            yield [
                Contestant(DIRECT, "127.0.0.1", port, ()),
                _make_contestant(LINES, lines),
                _make_contestant(DASHBOARD, dashboard),
            ]


@contextlib.contextmanager
def _running_local(folder: Path, port: int, *options: str) -> Iterator[Terminal]:
    arguments = ("local", "--port", "0", "--insecure", "--project", PROJECT, "--upstream", f"http://127.0.0.1:{port}")
    with in_terminal(Machine(folder), *arguments, *options, MESHAGENT_TOKEN="tp_bench") as terminal:
        terminal.wait_for(lambda _: b"unset ANTHROPIC_AUTH_TOKEN" in terminal.output)
        yield terminal


def _make_contestant(name: str, terminal: Terminal) -> Contestant:
    found = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", terminal.output)
    assert found is not None
    return Contestant(name, "127.0.0.1", int(found[1]), (), terminal.child.pid)


async def measure_all(folder: Path, rounds: int, load: Load) -> dict[str, list[Figures]]:
    """Return the figures of each round by contestant."""
    results: dict[str, list[Figures]] = {DIRECT: [], LINES: [], DASHBOARD: []}
    with running_contestants(folder) as contestants:
        for contestant in contestants[1:]:
            await measure(contestant, Load(load.streams, load.gap_us, 1))  # connections, caches, imports
        for _ in range(rounds):
            for contestant in contestants:
                results[contestant.name].append(await measure(contestant, load))
    return results


def make_table(results: dict[str, list[Figures]]) -> str:
    """Return the medians of the rounds as a table."""
    rows = ["| | p50 ms | p99 ms | longest ms | relay, cores | dashboard, cores |", "|---|---|---|---|---|---|"]
    names = ("p50_ms", "p99_ms", "longest_ms", "relay_cores", "dashboard_cores")
    for contestant, figures in results.items():
        medians = (statistics.median(getattr(round_, name) for round_ in figures) for name in names)
        rows.append(f"| {contestant} | " + " | ".join(f"{median:.2f}" for median in medians) + " |")
    return "\n".join(rows)


def find_ratio(results: dict[str, list[Figures]]) -> float:
    """Return the median p99 gap with the dashboard, divided by that without it."""
    with_it, without = (statistics.median(round_.p99_ms for round_ in results[name]) for name in (DASHBOARD, LINES))
    return with_it / without


def main() -> None:
    """Measure, print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--gap-us", type=int, default=10_000)
    options = parser.parse_args()
    load = Load(options.streams, options.gap_us, options.seconds)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        results = uvloop.run(measure_all(Path(folder), options.rounds, load))
    ratio = find_ratio(results)
    print(make_table(results))
    print(f"\np99 gap with the dashboard: {ratio:.2f} times that without (must be below {MAX_RATIO})")
    sys.exit(ratio >= MAX_RATIO)


if __name__ == "__main__":
    main()
