"""The server is killed (SIGKILL) under load, again and again: each request that the provider received has one entry.

`python -m tests.ledger.rounds` does the same to three processes that only write a ledger, in SQLite or PostgreSQL.
"""

from __future__ import annotations

import random
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
    """Start, load and kill the server `rounds` times; then start it once more and check the ledger."""
    report = Report()
    succeeded: list[str] = []
    with tempfile.TemporaryDirectory() as name, running_blocking_provider() as provider:
        folder = Path(name)
        for number in range(rounds):
            succeeded += _run_round(folder, provider, number)
        with running_proxy(folder, provider.url) as proxy:
            wait_until(lambda: set(provider.users) <= set(_read_bases(proxy.ledger)), "all entries")
            _check(report, proxy.ledger, provider, succeeded, rounds)
    return report


def _run_round(folder: Path, provider: BlockingProvider, number: int) -> list[str]:
    """Return the users whose requests succeeded before the kill."""
    with running_proxy(folder, provider.url) as proxy, Load(proxy.base_url, f"round{number}") as load:
        provider.wait_for_requests(30)
        time.sleep(random.random() * 0.5)  # the kill comes at a random point of the load
        proxy.kill()
    return load.succeeded


def _read_bases(ledger: Path) -> dict[str, str]:
    return {
        str(record["participant"]): str(record["basis"]) for record in read_records(make_backend(ledger), UsageFilter())
    }


def _check(report: Report, ledger: Path, provider: BlockingProvider, succeeded: list[str], rounds: int) -> None:
    entries = Counter(str(record["participant"]) for record in read_records(make_backend(ledger), UsageFilter()))
    unsettled = sum(basis == "unsettled" for basis in _read_bases(ledger).values())
    lost = set(provider.users) - set(entries)
    report.add_row("requests", f"{len(provider.users)} reached the provider, {len(succeeded)} succeeded")
    report.add_row("entries", f"{len(entries)}, {unsettled} of them unsettled, in {rounds} rounds")
    report.require(not lost, f"{len(lost)} requests are lost: {sorted(lost)[:5]}")
    report.require(max(entries.values()) == 1, "a request has two entries")
    # The intent of each caller's request may be in the ledger when the server dies before it sends the request.
    unsent = len(set(entries) - set(provider.users))
    report.require(unsent <= rounds * CALLERS, "entries of requests that were never sent")
    # Unsettled are requests in flight, and completed ones whose record waits for its commit, 100 ms at most.
    limit = max(rounds * CALLERS * 2, len(succeeded) // 2)
    report.require(unsettled <= limit, f"{unsettled} entries are unsettled")
