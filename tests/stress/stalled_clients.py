"""Clients that stop reading in the middle of a long stream, and read on later: each loses nothing, and costs little.

While they stall the server may hold less than 256 KiB for each, whatever the size of its stream, and other clients are
served as if they were not there.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass

from tests.harness import TIMEOUT_S, ProxyProcess
from tests.stress.async_proxy import becomes_true, serving
from tests.stress.clients import Client, stay
from tests.stress.process_stats import error_lines, resident_kib
from tests.stress.provider import USAGE, StressProvider, pieces, whole_answer
from tests.stress.report import Report
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records

#: KiB held for one client at the most.
_HELD_KIB = 256

#: KiB that the allocator may keep on top of what is held for all.
_SLACK_KIB = 2 * 1024

#: Bytes that the kernel takes in for a client that does not read.
_WINDOW_BYTES = 64 * 1024

#: Bytes a second that are read by all together on a slow machine.
_SLOW_BYTES_S = 8_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked for: how many clients, how much each reads, how long none of them does."""

    clients: int
    megabytes: int
    seconds: float


async def run(wanted: Run) -> Report:
    """Let them all ask, stall, and read to the end."""
    report = Report()
    size = wanted.megabytes * 1_000_000
    expected = hashlib.sha256(b"".join(pieces(size)) + USAGE).hexdigest()
    async with StressProvider(size).running() as provider, serving(provider.url) as proxy:
        first = await _ask(proxy, "long-first")
        report.require(await first.digest() == expected, "a client that did not stall got something else")
        before = resident_kib(proxy)
        async with asyncio.timeout(TIMEOUT_S + wanted.seconds + wanted.clients * size / _SLOW_BYTES_S):
            clients = [await _ask(proxy, f"long-{number}") for number in range(wanted.clients)]
            for client in clients:
                client.stall()
            await asyncio.gather(*(provider.reached(f"long-{number}") for number in range(wanted.clients)))
            grown = await _stalled(wanted, proxy, report) - before
            for client in clients:
                client.wake()
            digests = await asyncio.gather(*(client.digest() for client in clients))
            for client in (first, *clients):
                client.leave()
        _judge_memory(wanted, report, grown, resident_kib(proxy, "VmHWM") - before)
        whole = sum(digest == expected for digest in digests)
        report.row("streams", f"{wanted.clients} of {wanted.megabytes} MB, {whole} of them complete byte for byte")
        report.require(whole == wanted.clients, f"{wanted.clients - whole} streams are not what was sent")
        exact = await becomes_true(lambda: _exact(proxy) == len(provider.asked))
        report.require(exact, f"{_exact(proxy)} of {len(provider.asked)} calls have an exact record")
        report.require(not error_lines(proxy), f"the log has {error_lines(proxy)[:5]}")
    return report


def _judge_memory(wanted: Run, report: Report, grown_kib: int, most_kib: int) -> None:
    each = grown_kib / wanted.clients
    report.row("memory", f"{grown_kib:+} KiB while all stalled, {each:.0f} each; {most_kib:+} KiB at the most")
    allowed = _HELD_KIB * wanted.clients + _SLACK_KIB
    report.require(grown_kib < allowed, f"more than {allowed} KiB is held for {wanted.clients} clients")


def _exact(proxy: ProxyProcess) -> int:
    """How many records say that a call was completed, and what it cost."""
    records = read_records(make_backend(proxy.ledger), UsageFilter())
    return sum(record["outcome"] == "completed" and record["basis"] == "reported" for record in records)


async def _ask(proxy: ProxyProcess, user: str) -> Client:
    client = await Client.connect(proxy, user, window=_WINDOW_BYTES)
    await client.ask()
    return client


async def _stalled(wanted: Run, proxy: ProxyProcess, report: Report) -> int:
    """The most memory in KiB while nobody reads; others are served meanwhile."""
    most, served = resident_kib(proxy), 0
    until = time.monotonic() + wanted.seconds
    while not served or time.monotonic() < until:
        user = f"whole-{served}"
        report.require(await stay(proxy, user) == whole_answer(user), "another client was not served meanwhile")
        served += 1
        most = max(most, resident_kib(proxy))
    report.row("meanwhile", f"{served} other streams, one after another")
    return most
