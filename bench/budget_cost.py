"""Measure the CPU time that budgets and limits add to a JSON request.

    python -m bench.budget_cost [--seconds 300] [--window 0.25] [--kinds budget budgets limits]

Callers of one server take turns of a quarter of a second: callers without budgets, of a project with one budget, with
two, and with limits.  Two processes of the same configuration differ by up to 4 %, and a machine by more from minute to
minute, so only neighbouring turns of one process are compared: each with the turn without budgets of its round.

Such a server counts the records of all callers in a thread, whose work is not in the differences; `json-budget`, a part
of `python -m bench`, compares servers with and without budgets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, median, stdev

from bench.contestants import (
    HIGH_LIMITS,
    OF_EACH_CALLER,
    OF_PROJECT,
    OURS,
    Contestant,
    Workspace,
    running_provider,
    serving,
)
from bench.machine import Layout, on_cores, raise_file_limit, read_thread_cpu_ns
from bench.requests import CHAT_COMPLETION
from tests.harness import KEY_ID, PROJECT, mint

NONE, BUDGET, BUDGETS, LIMITS = "none", "budget", "budgets", "limits"

#: Connections of each kind of caller.
_CONNECTIONS = 32

#: Seconds of each kind before it is measured, in which the process fills its caches and leases slices.
_WARM_UP_S = 2.0

#: The part of the ratios that is left out at both ends: turns in which the machine did something else.
_TRIMMED = 0.1

_MEMBERS: Mapping[str, Mapping[str, object]] = {
    NONE: {},
    BUDGET: {"budgets": [OF_PROJECT]},
    BUDGETS: {"budgets": [OF_PROJECT, OF_EACH_CALLER]},
    LIMITS: {"limits": HIGH_LIMITS},
}


@dataclass(frozen=True, slots=True)
class Turn:
    """The CPU time of the server for each request of a turn, in us: of its event loop's thread, and of all threads."""

    loop_us: float
    all_us: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU time of requests as a multiple of that without budgets: the mean of rounds, and its standard error."""

    ratio: float
    error: float


class _Connection(asyncio.Protocol):
    """Sends one request after the other while it is on."""

    def __init__(self, request: bytes) -> None:
        self.requests = 0
        self._request = request
        self._received = b""
        self._is_on = False
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def start(self) -> None:
        """Send requests from now on."""
        self._is_on, self._ended = True, asyncio.get_running_loop().create_future()
        self._transport.write(self._request)

    async def stop(self) -> None:
        """Send no more requests; return when the last one has its response."""
        self._is_on = False
        assert self._ended is not None
        await self._ended

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _read_length(head):
            return
        self._received, self.requests = b"", self.requests + 1
        if self._is_on:
            self._transport.write(self._request)
        elif self._ended is not None:
            self._ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error or ConnectionError("the server has closed a connection"))


def _read_length(head: bytes) -> int:
    status, *lines = head.lower().split(b"\r\n")
    if b" 200 " not in status:
        raise RuntimeError(f"the server refused a request: {head!r}")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


async def measure(contestant: Contestant, kinds: Sequence[str], seconds: float, window_s: float) -> list[list[Turn]]:
    """Return the turns of each round, in the order of `kinds`."""
    order = random.Random(0)
    connections = [await _connect(contestant, kind) for kind in kinds]
    try:
        for group in connections:
            await _take_turn(contestant, group, _WARM_UP_S)
        rounds: list[list[Turn]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            turns: dict[int, Turn] = {}
            # In any order: records of a turn are counted in the next one.
            for number in order.sample(range(len(kinds)), len(kinds)):
                turns[number] = await _take_turn(contestant, connections[number], window_s)
            rounds.append([turns[number] for number in range(len(kinds))])
        return rounds
    finally:
        for connection in chain.from_iterable(connections):
            connection.close()


async def _connect(contestant: Contestant, kind: str) -> list[_Connection]:
    body = f"{CHAT_COMPLETION.before}{'word ' * 8}{CHAT_COMPLETION.after}"
    head = (
        f"POST {CHAT_COMPLETION.path} HTTP/1.1",
        "Host: bench",
        "Content-Type: application/json",
        f"Authorization: Bearer {_mint(kind)}",
        f"Content-Length: {len(body)}",
    )
    request = "\r\n".join((*head, "", body)).encode()
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: _Connection(request), contestant.host, contestant.port)
        for _ in range(_CONNECTIONS)
    ]
    return [connection for _, connection in opened]


async def _take_turn(contestant: Contestant, connections: Sequence[_Connection], seconds: float) -> Turn:
    assert contestant.root_pid is not None
    sent_before, before = _count(connections), read_thread_cpu_ns(contestant.root_pid)
    for connection in connections:
        connection.start()
    await asyncio.sleep(seconds)
    await asyncio.gather(*(connection.stop() for connection in connections))
    requests, after = _count(connections) - sent_before, read_thread_cpu_ns(contestant.root_pid)
    loop_ns = after[contestant.root_pid] - before[contestant.root_pid]
    return Turn(loop_ns / requests / 1000, (sum(after.values()) - sum(before.values())) / requests / 1000)


def _count(connections: Sequence[_Connection]) -> int:
    return sum(connection.requests for connection in connections)


def _mint(kind: str) -> str:
    return mint(project=_name_project(kind), key_id=_name_key(kind))


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
    """Return the cost of turns, each beside the one without budgets of its round."""
    ratios = sorted(value / base for value, base in zip(values, without, strict=True))
    left_out = int(len(ratios) * _TRIMMED)
    kept = ratios[left_out : len(ratios) - left_out]
    return Cost(fmean(kept), stdev(kept) / len(kept) ** 0.5 if len(kept) > 1 else float("nan"))


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


def run(folder: Path, kinds: Sequence[str], seconds: float, window_s: float) -> list[list[Turn]]:
    """Run the provider and the server, and measure."""
    layout = Layout.assign(sorted(os.sched_getaffinity(0)))
    workspace = Workspace(folder, layout, raise_file_limit())
    with (
        running_provider(workspace, processes=1) as provider_port,
        serving(OURS, workspace, provider_port, projects=list_projects(kinds)) as contestant,
        on_cores(layout.client),
    ):
        return asyncio.run(measure(contestant, kinds, seconds, window_s))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget_cost", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300, help="length of the measurement (default: 300)")
    parser.add_argument("--window", type=float, default=0.25, help="seconds of a turn (default: 0.25)")
    parser.add_argument("--kinds", nargs="+", default=[BUDGET, BUDGETS, LIMITS], choices=[BUDGET, BUDGETS, LIMITS])
    options = parser.parse_args()
    kinds = [NONE, *options.kinds]
    with tempfile.TemporaryDirectory() as folder:
        rounds = run(Path(folder), kinds, options.seconds, options.window)
    print(make_table(kinds, rounds))


if __name__ == "__main__":
    main()
