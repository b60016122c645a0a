"""Clients that stop reading within a long stream and continue later: each gets every byte, and costs little memory.

While they stall the server may hold less than 256 KiB for each, whatever the length of its stream, and it serves other
clients as before.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass

from tests.harness import TIMEOUT_S, ProxyProcess
from tests.stress.async_proxy import async_proxy, becomes_true
from tests.stress.clients import Client, fetch_body
from tests.stress.process_stats import error_messages, resident_kib
from tests.stress.provider import USAGE, StressProvider, complete_body, large_events
from tests.stress.report import Report
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records

#: KiB buffered for a client at most.
_MAX_BUFFERED_KIB = 256

#: KiB that the allocator may keep beyond the buffers of all clients.
_ALLOCATOR_KIB = 2 * 1024

#: Bytes that the kernel buffers for a client that does not read.
_WINDOW_BYTES = 64 * 1024

#: Bytes a second that all clients together read on a slow machine.
_SLOW_BYTES_S = 8_000_000


@dataclass(frozen=True, slots=True)
class StalledRun:
    """The size of a run: its clients, the megabytes that each reads, the seconds that all of them stall."""

    clients: int
    megabytes: int
    seconds: float


async def run(size: StalledRun) -> Report:
    """Have all clients send a request, stall, and then read to the end."""
    report = Report()
    stream_bytes = size.megabytes * 1_000_000
    expected = hashlib.sha256(b"".join(large_events(stream_bytes)) + USAGE).hexdigest()
    async with StressProvider(stream_bytes).running() as provider, async_proxy(provider.url) as proxy:
        first = await _connect(proxy, "long-first")
        report.require(await first.read_digest() == expected, "a client that did not stall received other bytes")
        before = resident_kib(proxy)
        async with asyncio.timeout(TIMEOUT_S + size.seconds + size.clients * stream_bytes / _SLOW_BYTES_S):
            clients = [await _connect(proxy, f"long-{number}") for number in range(size.clients)]
            for client in clients:
                client.stall()
            await asyncio.gather(*(provider.wait_reached(f"long-{number}") for number in range(size.clients)))
            growth = await _serve_others(size, proxy, report) - before
            for client in clients:
                client.resume()
            digests = await asyncio.gather(*(client.read_digest() for client in clients))
            for client in (first, *clients):
                client.disconnect()
        _check_memory(size, report, growth, resident_kib(proxy, "VmHWM") - before)
        complete = sum(digest == expected for digest in digests)
        report.add_row("streams", f"{size.clients} of {size.megabytes} MB, {complete} of them complete byte for byte")
        report.require(complete == size.clients, f"{size.clients - complete} streams are not what was sent")
        exact = await becomes_true(lambda: _count_exact(proxy) == len(provider.users))
        report.require(exact, f"{_count_exact(proxy)} of {len(provider.users)} requests have an exact record")
        report.require(not error_messages(proxy), f"the log has {error_messages(proxy)[:5]}")
    return report


def _check_memory(size: StalledRun, report: Report, growth_kib: int, max_growth_kib: int) -> None:
    each = growth_kib / size.clients
    report.add_row("memory", f"{growth_kib:+} KiB while all stalled, {each:.0f} each; {max_growth_kib:+} KiB at most")
    limit = _MAX_BUFFERED_KIB * size.clients + _ALLOCATOR_KIB
    report.require(growth_kib < limit, f"more than {limit} KiB is held for {size.clients} clients")


def _count_exact(proxy: ProxyProcess) -> int:
    """Return the number of completed requests whose cost the provider reported."""
    records = read_records(make_backend(proxy.ledger), UsageFilter())
    return sum(record["outcome"] == "completed" and record["basis"] == "reported" for record in records)


async def _connect(proxy: ProxyProcess, user: str) -> Client:
    client = await Client.connect(proxy, user, window=_WINDOW_BYTES)
    await client.send_request()
    return client


async def _serve_others(size: StalledRun, proxy: ProxyProcess, report: Report) -> int:
    """Serve other clients while all others stall; return the maximum of the server's memory in KiB."""
    max_kib, served = resident_kib(proxy), 0
    until = time.monotonic() + size.seconds
    while not served or time.monotonic() < until:
        user = f"whole-{served}"
        report.require(await fetch_body(proxy, user) == complete_body(user), "another client was not served meanwhile")
        served += 1
        max_kib = max(max_kib, resident_kib(proxy))
    report.add_row("meanwhile", f"{served} other streams, one after another")
    return max_kib
