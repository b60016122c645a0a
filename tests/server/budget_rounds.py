"""Rounds of parallel requests against one budget: python -m tests.server.budget_rounds --rounds 50 [--postgresql] ...

Two servers share a ledger; on PostgreSQL each has a folder of its own, as on two machines.  In each round a participant
sends a hundred requests in parallel, to either server at random.  With --kill one of the servers is killed at a random
time of each round, and started again.  The spend is that of the requests which the provider has served, in all servers:

- a budget is exceeded by less than one request, a strict one never;
- at the end the counters are the sums of the ledger, and nothing is reserved but the bounds of lost requests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.harness import TIMEOUT_S, ProxyProcess, mint, read_usage, running_proxy, wait_until
from tests.postgres_server import running_postgres
from tests.replay_provider import ProviderResponse, ReplayProvider, running_replay_provider
from tests.server.test_budgets import (
    CHAT,
    COST,
    RESPONSE,
    SLICED_LIMIT,
    each_participant,
    open_budgets_at,
)
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress

REQUESTS = 100

_SELECT_WRITERS = "SELECT writer FROM budget_leases UNION SELECT writer FROM budget_reservations WHERE state = 'open'"


@dataclass
class Node:
    """A server that can be killed and started again."""

    start: Callable[[], contextlib.AbstractContextManager[ProxyProcess]]
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def open(self) -> None:
        """Start the server."""
        self.proxy = self._running.enter_context(self.start())

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.proxy.kill()
        self._running.close()

    def close(self) -> None:
        """Stop the server."""
        self._running.close()


@dataclass
class Rounds:
    """Two servers of one ledger, and their provider."""

    nodes: tuple[Node, Node]
    provider: ReplayProvider
    client: httpx.Client
    url: str
    address: LedgerAddress
    strict: bool
    spent: list[Decimal] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    #: Seconds from a kill until nothing is reserved for the killed server.
    freed_s: list[float] = field(default_factory=list)

    def run(self, number: int, *, kill: bool) -> None:
        """Send the requests of a round, and check the spend."""
        name = f"round {number}"
        chance = random.Random(number)
        victim = chance.choice(self.nodes)
        with ThreadPoolExecutor(32) as pool:
            sent = [pool.submit(self._send, chance.choice(self.nodes).proxy, name) for _ in range(REQUESTS)]
            if kill:
                time.sleep(chance.uniform(0.05, 0.4))
                victim.kill()
            statuses = Counter(future.result() for future in sent)
        self.statuses += statuses
        served = sum(json.loads(request.body)["user"] == name for request in self.provider.requests)
        self.provider.requests.clear()
        self._check(number, served * COST)
        if kill:
            self._await_freed(number)
            victim.open()
        else:
            wait_until(lambda: len(self._read_totals(name)) == statuses["200"], "all records")
            assert sum(self._read_totals(name)) == served * COST
            assert served * COST > SLICED_LIMIT / 2  # nothing was refused that fits

    def _read_totals(self, name: str) -> list[Decimal]:
        return [Decimal(record["total"]) for record in read_usage(self.url) if record["participant"] == name]

    def _send(self, proxy: ProxyProcess, name: str) -> str:
        headers = {"Authorization": f"Bearer {mint(name=name)}"}
        try:
            response = self.client.post(
                proxy.base_url + "/v1/chat/completions", json={**CHAT, "user": name}, headers=headers
            )
            status = response.status_code
        except httpx.TransportError:
            return "broken"
        assert status in (200, 402, 429), status
        return str(status)

    def _check(self, number: int, spent: Decimal) -> None:
        self.spent.append(spent)
        assert spent <= SLICED_LIMIT if self.strict else spent < SLICED_LIMIT + COST, f"round {number} spent {spent}"

    def _await_freed(self, number: int) -> None:
        """Measure in some rounds how long the reservations of a killed server stay; the others go on meanwhile."""
        if number % 10 == 0:
            began = time.monotonic()
            with open_budgets_at(self.address) as store:
                wait_until(lambda: not has_dead_writers(store), "the reservations of the killed server")
            self.freed_s.append(time.monotonic() - began)

    def check_counters(self) -> int:
        """Check the counters at the end; return the number of requests that are held: nothing tells their cost."""
        with open_budgets_at(self.address) as store:
            wait_until(lambda: not store._budgets.fetch_rows(_SELECT_WRITERS), "no open reservation and no slice")
            expected: dict[str, list[Decimal]] = {}
            for record in read_usage(self.url):
                amounts = expected.setdefault(f"participant {record['participant']}", [Decimal(0), Decimal(0)])
                amounts[0] += Decimal(record["total"])
            held = list(store.iterate_reservations())
            for entry in held:
                assert entry.state == "held"
                for key in entry.counters:
                    expected[key.subject][1] += entry.total
            figures = {state.subject: [state.settled, state.reserved] for state in store.list_counters()}
            assert figures == expected
            assert store.folding.correct(datetime.now(UTC)) == 0
            return len(held)


def has_dead_writers(store: BudgetStore) -> bool:
    """Return True if anything is reserved for a server that has died."""
    writers = [str(writer) for (writer,) in store._budgets.fetch_rows(_SELECT_WRITERS)]
    return any(store._databases.liveness.is_dead(writer) for writer in writers)


@contextlib.contextmanager
def running_rounds(
    folder: Path,
    provider: ReplayProvider,
    postgres_url: str | None,
    *,
    strict: bool,
    constants: Mapping[str, float | list[float]] | None = None,
) -> Iterator[Rounds]:
    """Start two servers whose participants can spend SLICED_LIMIT each."""
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    folders = [folder / name for name in ("one", "two")]
    for node_folder in folders:
        node_folder.mkdir()
    address: LedgerAddress = folder / "ledger.db"
    url = f"sqlite:///{address}"
    if postgres_url is not None:
        url, address = postgres_url, PostgresAddress(postgres_url, None, folder / "journal")
    changes: dict[str, Any] = {
        "ledger": {"url": url},
        "projects": [each_participant(SLICED_LIMIT, strict=strict)],
        "constants": constants,
    }
    one, two = (
        Node(lambda node_folder=node_folder: running_proxy(node_folder, provider.url, **changes))  # type: ignore[misc]
        for node_folder in folders
    )
    try:
        for node in (one, two):
            node.open()
        with httpx.Client(timeout=TIMEOUT_S) as client:
            yield Rounds((one, two), provider, client, url, address, strict)
    finally:
        for node in (one, two):
            node.close()


def main() -> None:
    """Run the rounds and print figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    for flag in ("--postgresql", "--strict", "--kill"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_postgres()).new_database() if options.postgresql else None
        provider = stack.enter_context(running_replay_provider())
        rounds = stack.enter_context(running_rounds(folder, provider, url, strict=options.strict))
        for number in range(options.rounds):
            rounds.run(number, kill=options.kill)
        held = rounds.check_counters()
    sys.stdout.write(
        f"{options.rounds} rounds: spent {min(rounds.spent)} to {max(rounds.spent)} of {SLICED_LIMIT} USD; statuses "
        f"{dict(rounds.statuses)}; {held} requests held; freed after {[round(s, 1) for s in rounds.freed_s]} s\n"
    )


if __name__ == "__main__":
    main()
