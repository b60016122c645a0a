"""Clients that disconnect in every phase, among clients that stay: the others are not disturbed, and nothing leaks.

At the end
- each complete stream is byte for byte what the provider sent, and the provider has no open stream;
- the server has no request in flight, no file descriptor beyond its kept connections, and its memory has not grown;
- no request has left objects to the cycle collector;
- the ledger has one record of each request that reached the provider.  Its cost is reported or estimated; it is
  unknown only if the provider was cancelled before its first byte, and the record states that.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
import signal
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.harness import ProxyProcess
from tests.stress.async_proxy import async_proxy, becomes_true
from tests.stress.clients import PHASES, disconnect_early, fetch_body
from tests.stress.gc_disabled import UNCOLLECTED
from tests.stress.process_stats import MemorySamples, error_messages, open_files, requests_in_flight, sampled_memory
from tests.stress.provider import StressProvider, complete_body
from tests.stress.report import Report
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records

#: File descriptors that the server may open for itself meanwhile: a file of intents, a connection that is closing.
_SPARE_FILES = 8

#: The module that runs the server.
_PROGRAM = "tests.stress.gc_disabled"

#: The bases of a record whose response had started, by policy.
_EXPECTED_BASES = {"drain": ("reported",), "cancel": ("reported", "estimated")}

#: KiB that memory may grow from the first third of a run to the last: the ledger's page cache, 16 MiB, is full only
#: after some 14,000 records, and the allocator keeps the memory of the maximum number of streams.
_MAX_GROWTH_KIB = 32 * 1024


@dataclass(frozen=True, slots=True)
class DisconnectingRun:
    """The size of a run.  `policy` is streams.on_client_disconnect, `concurrency` the number of clients at a time."""

    disconnecting: int
    complete: int
    concurrency: int
    policy: str


@dataclass(frozen=True, slots=True)
class _RunState:
    """A run in progress; `damaged` describes streams that should be complete and are not."""

    size: DisconnectingRun
    proxy: ProxyProcess
    provider: StressProvider
    report: Report
    damaged: list[str] = field(default_factory=list)


async def run(size: DisconnectingRun) -> Report:
    """Run all clients, then check the server, the provider and the ledger."""
    async with (
        StressProvider().running() as provider,
        async_proxy(provider.url, program=_PROGRAM, streams={"on_client_disconnect": size.policy}) as proxy,
    ):
        state = _RunState(size, proxy, provider, Report())
        await fetch_body(proxy, "whole-first")
        files = open_files(proxy)
        async with sampled_memory(proxy) as memory:
            await _run_all(_make_clients(state), size.concurrency)
        await _check_streams(state)
        _check_resources(state, memory, files)
        proxy.signal(signal.SIGTERM)
        state.report.require(await asyncio.to_thread(proxy.wait_exit) == 0, "the exit code is not 0")
        _check_ledger(state, list(read_records(make_backend(proxy.ledger), UsageFilter())))
    return state.report


def _make_clients(state: _RunState) -> Iterator[Awaitable[None]]:
    """Yield all clients in random order."""
    phases = itertools.islice(itertools.cycle(PHASES), state.size.disconnecting)
    users = [f"{phase}-{number}" for number, phase in enumerate(phases)]
    users += [f"whole-{number}" for number in range(state.size.complete)]
    random.shuffle(users)
    for user in users:
        yield _stay(state, user) if user.startswith("whole") else _disconnect(state, user)


async def _stay(state: _RunState, user: str) -> None:
    try:
        if await fetch_body(state.proxy, user) != complete_body(user):
            state.damaged.append(f"{user}: not what was sent")
    except (OSError, EOFError, TimeoutError, AssertionError) as error:
        state.damaged.append(f"{user}: {error!r}")


async def _disconnect(state: _RunState, user: str) -> None:
    try:
        await disconnect_early(state.proxy, state.provider, user)
    except (OSError, EOFError, TimeoutError) as error:
        state.report.faults.append(f"{user} did not reach the point where it disconnects: {error!r}")


async def _run_all(clients: Iterable[Awaitable[None]], concurrency: int) -> None:
    """Await all clients, `concurrency` at a time."""
    remaining = iter(clients)

    async def work() -> None:
        for client in remaining:
            await client

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def _check_streams(state: _RunState) -> None:
    """Wait for the last streams to end; check the complete ones, the log and the cycle collector."""
    provider, require = state.provider, state.report.require
    require(await becomes_true(lambda: provider.open_streams == 0), f"the provider has {provider.open_streams} streams")
    require(await becomes_true(lambda: requests_in_flight(state.proxy) == 0), "/metrics has requests in flight")
    ahead = sum(user.startswith("ahead") for user in provider.users)
    require(provider.full_streams >= ahead * 0.9, f"{provider.full_streams} of {ahead} streams ran ahead until full")
    require(not state.damaged, f"{len(state.damaged)} of {state.size.complete} complete streams are damaged")
    state.report.faults += state.damaged[:10]
    state.proxy.signal(signal.SIGUSR2)
    uncollected = await asyncio.to_thread(state.proxy.wait_for_log, UNCOLLECTED)
    require(uncollected == f"{UNCOLLECTED}{{}}", uncollected)
    logged = collections.Counter(error_messages(state.proxy))
    require(not logged, f"the log has {logged}")


def _check_resources(state: _RunState, memory: MemorySamples, files: int) -> None:
    files_now, kept, growth = open_files(state.proxy), state.provider.connections, memory.growth_kib()
    state.report.add_row("descriptors", f"{files} at the start, {files_now} at the end, {kept} kept connections")
    state.report.require(
        files_now <= files + kept + _SPARE_FILES, f"{files_now - files} descriptors more than at the start"
    )
    first, maximum = memory.samples[0], max(memory.samples)
    state.report.add_row("memory", f"{first} KiB at the start, {maximum} at most; {growth:+} from first to last third")
    state.report.require(growth <= _MAX_GROWTH_KIB, f"memory grows: {growth} KiB from the first third to the last")


def _check_ledger(state: _RunState, records: list[Mapping[str, object]]) -> None:
    """Compare the ledger with the requests that the provider received."""
    require, policy = state.report.require, state.size.policy
    entries = collections.Counter(str(record["participant"]) for record in records)
    received = collections.Counter(state.provider.users)
    require(max(received.values()) == 1, "a request was sent twice")
    require(max(entries.values()) == 1, "a request has two records")
    require(received <= entries, f"{len(received - entries)} requests have no record")
    require(entries <= received, f"{len(entries - received)} records are of requests that were never sent")
    inexact = [str(record["participant"]) for record in records if record["basis"] not in _EXPECTED_BASES[policy]]
    inexact = [user for user in inexact if policy == "drain" or not user.startswith("silent")]
    require(not inexact, f"{len(inexact)} records are less exact than they could be: {inexact[:5]}")
    for phase in ("whole", *PHASES):
        of_phase = [record for record in records if str(record["participant"]).startswith(phase)]
        ends = collections.Counter(f"{record['outcome']}, {record['basis']}" for record in of_phase)
        figures = "; ".join(f"{count} {end}" for end, count in ends.items())
        state.report.add_row(phase, figures or "never sent, no record")
