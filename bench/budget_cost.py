"""Measure the CPU time that budgets and limits add to a JSON request.

    python -m bench.budget_cost [--seconds 300] [--window 0.25] [--kinds budget budgets limits]
    python -m bench.budget_cost --pairs 30 [--seconds 12]

Callers of one server take turns of a quarter of a second: callers without budgets, of a project with one budget, with
two, and with limits.  Each turn is compared with the one without budgets of its round, because a machine differs by
more from minute to minute.  Such a server counts the records of all callers in a thread, whose work is not in the
differences.

With --pairs, a server without budgets and one with a budget take turns, and their whole CPU time is compared.  It
includes the counting of records, and the periodic work of each server during the turns of the other one.  Two processes
of the same configuration differ by some per cent for as long as they run, so each pair has new ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from bench.contestants import (
    HIGH_LIMITS,
    OF_EACH_CALLER,
    OF_PROJECT,
    OURS,
    WITH_BUDGET,
    Contestant,
    Workspace,
    running_contestant,
    running_provider,
    serving,
)
from bench.load.turns import Caller, Usage
from bench.machine import Layout, on_cores, raise_file_limit
from tests.harness import KEY_ID, PROJECT, mint

NONE, BUDGET, BUDGETS, LIMITS = "none", "budget", "budgets", "limits"

#: Seconds of each caller before it is measured, in which the process fills its caches and leases slices.
_WARM_UP_S = 2.0

#: Seconds in which a server counts the records of its last requests.
_COUNTED_S = 1.5

#: The part of the ratios that is left out at both ends: rounds in which the machine did something else.
_TRIMMED = 0.1

_MEMBERS: Mapping[str, Mapping[str, object]] = {
    NONE: {},
    BUDGET: {"budgets": [OF_PROJECT]},
    BUDGETS: {"budgets": [OF_PROJECT, OF_EACH_CALLER]},
    LIMITS: {"limits": HIGH_LIMITS},
}


@dataclass(frozen=True, slots=True)
class Turn:
    """The CPU time of a server for each request of a caller, in us: of its event loop's thread, and of all threads."""

    loop_us: float
    all_us: float

    @classmethod
    def of(cls, used: Usage) -> Turn:
        """Return the CPU time for each request."""
        return cls(used.loop_ns / used.requests / 1000, used.all_ns / used.requests / 1000)


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU time of requests as a multiple of that without budgets: the mean of rounds, and its standard error."""

    ratio: float
    error: float


async def measure_callers(callers: Sequence[Caller], seconds: float, window_s: float) -> list[list[Turn]]:
    """Return the turns of each round, in the order of `callers`, which have one server."""
    order = random.Random(0)
    await _warm_up(callers)
    rounds: list[list[Turn]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turns: dict[int, Turn] = {}
        # In any order: records of a turn are counted in the next one.
        for number in order.sample(range(len(callers)), len(callers)):
            before = callers[number].read_usage()
            await callers[number].take_turn(window_s)
            turns[number] = Turn.of(callers[number].read_usage() - before)
        rounds.append([turns[number] for number in range(len(callers))])
    return rounds


async def measure_servers(callers: Sequence[Caller], seconds: float, window_s: float) -> list[Turn]:
    """Return the CPU time of all turns of each caller, in the order of `callers`, each of which has its own server."""
    order = random.Random(0)
    await _warm_up(callers)
    await asyncio.sleep(_COUNTED_S)
    before = [caller.read_usage() for caller in callers]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for caller in order.sample(callers, len(callers)):
            await caller.take_turn(window_s)
    await asyncio.sleep(_COUNTED_S)
    return [Turn.of(caller.read_usage() - earlier) for caller, earlier in zip(callers, before, strict=True)]


async def _warm_up(callers: Sequence[Caller]) -> None:
    for caller in callers:
        await caller.take_turn(_WARM_UP_S)


@contextlib.asynccontextmanager
async def _connected(tokens: Sequence[tuple[Contestant, str]]) -> AsyncIterator[list[Caller]]:
    callers = [await Caller.connect(contestant, token) for contestant, token in tokens]
    try:
        yield callers
    finally:
        for caller in callers:
            caller.close()


def _name_project(kind: str) -> str:
    return f"{PROJECT[:-2]}{list(_MEMBERS).index(kind):02}"


def _name_key(kind: str) -> str:
    return f"{KEY_ID[:-2]}{list(_MEMBERS).index(kind):02}"


def list_projects(kinds: Sequence[str]) -> list[dict[str, object]]:
    """Return the projects of a configuration, one for each kind of caller."""
    return [
        {
            "id": _name_project(kind),
            "name": kind,
            "api_keys": [{"id": _name_key(kind), "secret": {"env": "TEST_SIGNING_SECRET"}}],
            **_MEMBERS[kind],
        }
        for kind in kinds
    ]


def find_cost(values: Sequence[float], without: Sequence[float]) -> Cost:
    """Return the cost of turns, each beside the one without budgets of its round: the trimmed mean of their ratios.

    Its standard error is that of Tukey and McLaughlin (1963): of the ratios with the extremes moved inwards.
    """
    ratios = sorted(value / base for value, base in zip(values, without, strict=True))
    left_out = int(len(ratios) * _TRIMMED)
    kept = ratios[left_out : len(ratios) - left_out]
    if len(kept) < 2:
        return Cost(fmean(kept), float("nan"))
    winsorized = [kept[0]] * left_out + kept + [kept[-1]] * left_out
    return Cost(fmean(kept), stdev(winsorized) * len(ratios) ** 0.5 / len(kept))


def make_table(kinds: Sequence[str], rounds: Sequence[Sequence[Turn]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"{len(rounds)} rounds; medians in us; multiples are means of the rounds with their standard errors",
        "",
        "| callers | loop | all threads | loop | all threads |",
        "|---|---|---|---|---|",
    ]
    of_kinds = list(zip(*rounds, strict=True))
    without = of_kinds[0]
    for kind, turns in zip(kinds, of_kinds, strict=True):
        loop = find_cost([turn.loop_us for turn in turns], [turn.loop_us for turn in without])
        everything = find_cost([turn.all_us for turn in turns], [turn.all_us for turn in without])
        medians = f"{median(turn.loop_us for turn in turns):.0f} | {median(turn.all_us for turn in turns):.0f}"
        multiples = " | ".join(f"{cost.ratio:.3f} ± {cost.error:.3f}" for cost in (loop, everything))
        lines.append(f"| {kind} | {medians} | {multiples} |")
    return "\n".join(lines)


@contextlib.contextmanager
def _workspace(folder: Path) -> Iterator[tuple[Workspace, int]]:
    """Run the provider; yield the workspace of servers and the provider's port, on the cores of the callers."""
    layout = Layout.assign(sorted(os.sched_getaffinity(0)))
    workspace = Workspace(folder, layout, raise_file_limit())
    with running_provider(workspace, processes=1) as provider_port, on_cores(layout.client):
        yield workspace, provider_port


def run_callers(folder: Path, kinds: Sequence[str], seconds: float, window_s: float) -> list[list[Turn]]:
    """Run the provider and one server, and measure the callers of `kinds`."""

    async def measure(contestant: Contestant) -> list[list[Turn]]:
        tokens = [(contestant, mint(project=_name_project(kind), key_id=_name_key(kind))) for kind in kinds]
        async with _connected(tokens) as callers:
            return await measure_callers(callers, seconds, window_s)

    with (
        _workspace(folder) as (workspace, provider_port),
        serving(OURS, workspace, provider_port, projects=list_projects(kinds)) as contestant,
    ):
        return asyncio.run(measure(contestant))


def run_pairs(folder: Path, pairs: int, seconds: float, window_s: float) -> list[list[Turn]]:
    """Run the provider, and pairs of a server without and one with a budget; measure each pair."""

    async def measure(contestants: Sequence[Contestant]) -> list[Turn]:
        async with _connected([(contestant, mint()) for contestant in contestants]) as callers:
            return await measure_servers(callers, seconds, window_s)

    rounds: list[list[Turn]] = []
    with _workspace(folder) as (workspace, provider_port):
        for number in range(pairs):
            names = (OURS, WITH_BUDGET)
            with contextlib.ExitStack() as servers:
                # Either one starts first.
                running = {
                    name: servers.enter_context(running_contestant(name, workspace, provider_port))
                    for name in (names if number % 2 else reversed(names))
                }
                rounds.append(asyncio.run(measure([running[name] for name in names])))
    return rounds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget_cost", description=__doc__.partition("\n")[0])
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument("--pairs", type=int, help="pairs of servers, one without budgets and one with a budget")
    parser.add_argument("--seconds", type=float, help="length of the measurement (default: 300), or of each pair (12)")
    parser.add_argument("--window", type=float, default=0.25, help="seconds of a turn (default: 0.25)")
    measured.add_argument(
        "--kinds", nargs="+", default=[BUDGET, BUDGETS, LIMITS], choices=[BUDGET, BUDGETS, LIMITS], help="of one server"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.pairs is not None:
            kinds, rounds = [NONE, BUDGET], run_pairs(folder, options.pairs, options.seconds or 12, options.window)
        else:
            kinds = [NONE, *options.kinds]
            rounds = run_callers(folder, kinds, options.seconds or 300, options.window)
    print(make_table(kinds, rounds))


if __name__ == "__main__":
    main()
