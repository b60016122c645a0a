"""Clients that leave early in every phase, among clients that stay: nobody else may notice, and nothing may be left.

At the end each complete stream is what the provider sent byte for byte, the provider has no open stream, the server has
no request in flight and no descriptor more than its kept connections, its memory has not grown, no call has left
anything to the collector of cycles, and the ledger has each request that reached the provider once.  What it cost is
known, or estimated; only where the provider was cancelled before its first byte nothing is known, and the record says
so.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
import signal
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.harness import ProxyProcess
from tests.stress.async_proxy import becomes_true, serving
from tests.stress.clients import PHASES, leave, stay
from tests.stress.gc_disabled import LEFT
from tests.stress.process_stats import Memory, error_lines, in_flight, open_files, watched
from tests.stress.provider import StressProvider, whole_answer
from tests.stress.report import Report
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records

#: The server's own descriptors may change by a few: a file of intents, a connection that is being closed.
_SPARE_FILES = 8

#: The module to run in place of the server's own.
_PROGRAM = "tests.stress.gc_disabled"

#: How the cost of a call whose answer had begun is known, by policy.
_SURE = {"drain": ("reported",), "cancel": ("reported", "estimated")}

#: KiB that memory may grow from the first third of a run to the last: the ledger's pages in memory, 16 MiB, are full
#: only after some 14,000 records, and the allocator keeps what the most streams at once took.
_GROWTH_KIB = 32 * 1024


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked for.  `policy` is streams.on_client_disconnect."""

    leaving: int
    complete: int
    at_once: int
    policy: str


@dataclass(frozen=True, slots=True)
class _Going:
    """A run under way; `damaged` are complete streams that are not."""

    wanted: Run
    proxy: ProxyProcess
    provider: StressProvider
    report: Report
    damaged: list[str] = field(default_factory=list)


async def run(wanted: Run) -> Report:
    """Let them all come and go, then look at what is left."""
    async with (
        StressProvider().running() as provider,
        serving(provider.url, program=_PROGRAM, streams={"on_client_disconnect": wanted.policy}) as proxy,
    ):
        going = _Going(wanted, proxy, provider, Report())
        await stay(proxy, "whole-first")
        files = open_files(proxy)
        async with watched(proxy) as memory:
            await _all(_clients(going), wanted.at_once)
        await _look(going)
        _measure(going, memory, files)
        proxy.signal(signal.SIGTERM)
        going.report.require(await asyncio.to_thread(proxy.wait_exit) == 0, "the exit code is not 0")
        _account(going, list(read_records(make_backend(proxy.ledger), UsageFilter())))
    return going.report


def _clients(going: _Going) -> Iterator[Awaitable[None]]:
    """All clients, in no order."""
    phases = itertools.islice(itertools.cycle(PHASES), going.wanted.leaving)
    users = [f"{phase}-{number}" for number, phase in enumerate(phases)]
    users += [f"whole-{number}" for number in range(going.wanted.complete)]
    random.shuffle(users)
    for user in users:
        yield _stay(going, user) if user.startswith("whole") else _leave(going, user)


async def _stay(going: _Going, user: str) -> None:
    try:
        if await stay(going.proxy, user) != whole_answer(user):
            going.damaged.append(f"{user}: not what was sent")
    except (OSError, EOFError, TimeoutError, AssertionError) as error:
        going.damaged.append(f"{user}: {error!r}")


async def _leave(going: _Going, user: str) -> None:
    try:
        await leave(going.proxy, going.provider, user)
    except (OSError, EOFError, TimeoutError) as error:
        going.report.faults.append(f"{user} did not come to where it leaves: {error!r}")


async def _all(clients: Iterable[Awaitable[None]], at_once: int) -> None:
    """Await all of them, a number at a time."""
    waiting = iter(clients)

    async def work() -> None:
        for client in waiting:
            await client

    await asyncio.gather(*(work() for _ in range(at_once)))


async def _look(going: _Going) -> None:
    """Wait for the last streams to end, and look at those that were complete."""
    provider, require = going.provider, going.report.require
    require(await becomes_true(lambda: provider.open_streams == 0), f"the provider has {provider.open_streams} streams")
    require(await becomes_true(lambda: in_flight(going.proxy) == 0), "/metrics says that requests are in flight")
    ahead = sum(user.startswith("ahead") for user in provider.asked)
    require(provider.full >= ahead * 0.9, f"{provider.full} of {ahead} streams ran ahead until they were full")
    require(not going.damaged, f"{len(going.damaged)} of {going.wanted.complete} complete streams are not")
    going.report.faults += going.damaged[:10]
    going.proxy.signal(signal.SIGUSR1)
    left = await asyncio.to_thread(going.proxy.wait_for_log, LEFT)
    require(left == f"{LEFT}{{}}", left)
    logged = collections.Counter(error_lines(going.proxy))
    require(not logged, f"the log has {logged}")


def _measure(going: _Going, memory: Memory, files: int) -> None:
    now, kept, growth = open_files(going.proxy), going.provider.connections, memory.growth_kib()
    going.report.row("descriptors", f"{files} at the start, {now} at the end, {kept} kept connections")
    going.report.require(now <= files + kept + _SPARE_FILES, f"{now - files} descriptors more than at the start")
    first, most = memory.samples[0], max(memory.samples)
    going.report.row("memory", f"{first} KiB at the start, {most} at the most; {growth:+} from first to last third")
    going.report.require(growth <= _GROWTH_KIB, f"memory grows: {growth} KiB from the first third to the last")


def _account(going: _Going, records: list[dict[str, Any]]) -> None:
    """Hold the ledger against what the provider was asked."""
    require, policy = going.report.require, going.wanted.policy
    entries = collections.Counter(str(record["participant"]) for record in records)
    asked = collections.Counter(going.provider.asked)
    require(max(asked.values()) == 1, "a request was sent twice")
    require(max(entries.values()) == 1, "a request has two records")
    require(asked <= entries, f"{len(asked - entries)} requests have no record")
    require(entries <= asked, f"{len(entries - asked)} records are of requests that were never sent")
    unsure = [str(one["participant"]) for one in records if one["basis"] not in _SURE[policy]]
    unsure = [user for user in unsure if policy == "drain" or not user.startswith("silent")]
    require(not unsure, f"{len(unsure)} records are less exact than they could be: {unsure[:5]}")
    for phase in ("whole", *PHASES):
        mine = [record for record in records if str(record["participant"]).startswith(phase)]
        ends = collections.Counter(f"{record['outcome']}, {record['basis']}" for record in mine)
        going.report.row(phase, "; ".join(f"{count} {one}" for one, count in ends.items()) or "never sent, no record")
