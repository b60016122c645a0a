"""The server is killed (SIGKILL) under load, again and again: each request that the provider saw has one entry.

`python -m tests.ledger.rounds` does the same to three processes that only write a ledger, in SQLite or PostgreSQL.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.harness import running_proxy, wait_until
from tests.server.blocking_provider import BlockingProvider, running_blocking_provider
from tests.server.load import CALLERS, Load
from tests.stress.report import Report
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records


def run(rounds: int) -> Report:
    """Start, load and kill `rounds` times; then start once more and read the ledger."""
    report = Report()
    answered: list[str] = []
    with tempfile.TemporaryDirectory() as place, running_blocking_provider() as provider:
        folder = Path(place)
        for number in range(rounds):
            answered += _one_round(folder, provider, number)
        with running_proxy(folder, provider.url) as proxy:
            wait_until(lambda: set(provider.users) <= set(_entries(proxy.ledger)), "all entries")
            _judge(report, proxy.ledger, provider, answered, rounds)
    return report


def _one_round(folder: Path, provider: BlockingProvider, number: int) -> list[str]:
    """The users who were answered before the kill."""
    with running_proxy(folder, provider.url) as proxy, Load(proxy.base_url, f"round{number}") as load:
        seen = len(provider.users)
        wait_until(lambda: len(provider.users) > seen + 30, "some load")
        time.sleep(random.random() * 0.5)
        proxy.signal(signal.SIGKILL)
        proxy.wait_exit()
    return load.succeeded


def _entries(ledger: Path) -> dict[str, str]:
    return {str(one["participant"]): str(one["basis"]) for one in read_records(make_backend(ledger), UsageFilter())}


def _judge(report: Report, ledger: Path, provider: BlockingProvider, answered: list[str], rounds: int) -> None:
    entries = Counter(str(one["participant"]) for one in read_records(make_backend(ledger), UsageFilter()))
    unsettled = sum(basis == "unsettled" for basis in _entries(ledger).values())
    lost = set(provider.users) - set(entries)
    report.row("calls", f"{len(provider.users)} reached the provider, {len(answered)} were answered")
    report.row("entries", f"{len(entries)}, {unsettled} of them unsettled, in {rounds} rounds")
    report.require(not lost, f"{len(lost)} requests are lost: {sorted(lost)[:5]}")
    report.require(max(entries.values()) == 1, "a request has two entries")
    # A caller's request may be promised to the ledger, and the server dead before it is sent.
    report.require(
        len(set(entries) - set(provider.users)) <= rounds * CALLERS, "entries of requests that were never sent"
    )
    # What a kill catches: calls under way, and answered ones whose record waited for its commit of 100 ms at the most.
    report.require(unsettled <= max(rounds * CALLERS * 2, len(answered) // 2), f"{unsettled} entries are unsettled")
