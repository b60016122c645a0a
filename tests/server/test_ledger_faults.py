"""A ledger that cannot be written while the server runs: requests are rejected, and no record is lost."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.harness import ProxyProcess, running_proxy, wait_until
from tests.server.blocking_provider import (
    TOTAL_USD,
    BlockingProvider,
    chat,
    request_in_flight,
    running_blocking_provider,
)
from tests.server.ledger_checks import (
    SHORT_INTERVALS,
    check_one_record_each,
    check_rejects_requests,
    fill_disk,
    small_disk,
    wait_ready,
    wait_unready,
)
from tests.server.test_budgets import open_budgets

BUDGETS = {"default_project": {"budgets": [{"period": "total", "usd": "100"}]}}

Fault = Callable[[ProxyProcess], contextlib.AbstractContextManager[None]]


@pytest.fixture
def provider() -> Iterator[BlockingProvider]:
    with running_blocking_provider() as running:
        yield running


@contextlib.contextmanager
def locked(proxy: ProxyProcess) -> Iterator[None]:
    """Have another program hold the write lock."""
    with contextlib.closing(sqlite3.connect(proxy.ledger, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(proxy: ProxyProcess) -> Iterator[None]:
    """Let no file of the process grow: the same system calls fail as on a full disk, with EFBIG, for every user."""
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def moved_away(proxy: ProxyProcess) -> Iterator[None]:
    """Move the file away, and back."""
    aside = proxy.ledger.with_name("aside.db")
    proxy.ledger.rename(aside)
    yield
    aside.rename(proxy.ledger)


@contextlib.contextmanager
def replaced(proxy: ProxyProcess) -> Iterator[None]:
    """Put a copy in the file's place, which SQLite's write-ahead log would damage."""
    aside = proxy.ledger.with_name("aside.db")
    shutil.copyfile(proxy.ledger, aside)
    proxy.ledger.rename(proxy.ledger.with_name("first.db"))
    aside.rename(proxy.ledger)
    yield
    proxy.ledger.with_name("first.db").rename(proxy.ledger)


@contextlib.contextmanager
def damaged(proxy: ProxyProcess) -> Iterator[None]:
    """Overwrite the file, as a broken disk does; then restore a backup."""
    with (
        contextlib.closing(sqlite3.connect(proxy.ledger)) as db,
        contextlib.closing(sqlite3.connect(proxy.folder / "backup.db")) as backup,
    ):
        db.backup(backup)
    for file in proxy.folder.glob("ledger.db*"):
        if file.name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            with file.open("r+b") as opened:
                opened.write(b"no ledger " * (file.stat().st_size // 10))
    yield
    with proxy.ledger.open("r+b") as opened:
        opened.truncate()
        opened.write((proxy.folder / "backup.db").read_bytes())


@contextlib.contextmanager
def emptied(proxy: ProxyProcess) -> Iterator[None]:
    """Copy a backup into the file's place, slowly: the copy begins with an empty file."""
    with (
        contextlib.closing(sqlite3.connect(proxy.ledger)) as db,
        contextlib.closing(sqlite3.connect(proxy.folder / "backup.db")) as backup,
    ):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.backup(backup)
    proxy.ledger.write_bytes(b"")
    yield
    assert proxy.ledger.stat().st_size == 0  # nothing has taken it for a new ledger
    proxy.ledger.write_bytes((proxy.folder / "backup.db").read_bytes())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(locked, "another program holds the file", id="locked"),
        pytest.param(full_disk, "free space", id="full disk"),
        pytest.param(moved_away, "the file is missing", id="missing"),
        pytest.param(replaced, "was replaced by another file while it was open", id="replaced"),
        pytest.param(damaged, "is damaged or no ledger", id="damaged"),
        pytest.param(emptied, "is empty", id="emptied"),
    ],
)
def test_failing_ledger_rejects_new_requests_and_keeps_the_records_of_those_in_flight(
    fault: Fault, reason: str, provider: BlockingProvider, tmp_path: Path
) -> None:
    with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, budgets=BUDGETS) as proxy:
        assert chat(proxy.base_url, "before").status_code == 200
        proxy.read_records(count=1)
        with request_in_flight(proxy, provider, "held") as responses, fault(proxy):
            if fault is full_disk:  # only a write detects it
                assert chat(proxy.base_url, "rejected").status_code == 503
            wait_unready(proxy)
            wait_until(lambda: reason in proxy.fetch_admin("/readyz")[1], f"{reason}: {proxy.fetch_admin('/readyz')}")
            check_rejects_requests(proxy)
            provider.release.set()
            wait_until(lambda: len(responses) == 1, "the response of the request in flight")
            assert responses[0].status_code == 200
        wait_ready(proxy)
        # The budgets connect again a moment later than the ledger.
        wait_until(lambda: chat(proxy.base_url, "after").status_code == 200, "the next request")

        check_one_record_each(proxy.read_records(count=3), ["before", "held", "after"])
        with open_budgets(proxy) as store:
            spent = [3 * Decimal(TOTAL_USD)]
            wait_until(lambda: [counter.settled for counter in store.list_counters()] == spent, "the budget")
        assert "rejected" not in provider.users
        lines = [line for line in proxy.log if "the ledger cannot be written" in line]
        assert any(reason in line for line in lines), lines
        proxy.wait_for_log("the ledger can be written again")


def test_full_disk_costs_no_record(provider: BlockingProvider, tmp_path: Path) -> None:
    ledger = {"url": "sqlite:///var/ledger.db"}
    with (
        small_disk(tmp_path / "var") as disk,
        running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, ledger=ledger) as proxy,
    ):
        proxy.ledger_url = f"sqlite:///{disk}/ledger.db"
        with request_in_flight(proxy, provider, "held"):
            filler = disk / "filler"
            fill_disk(filler)
            wait_until(lambda: chat(proxy.base_url, "rejected").status_code == 503, "a rejection")
            check_rejects_requests(proxy)
            assert "free space" in proxy.fetch_admin("/readyz")[1]
            provider.release.set()
        filler.unlink()
        wait_ready(proxy)

        records = proxy.read_records(count=len(provider.users))
        assert sorted(record["participant"] for record in records) == sorted(provider.users)
        assert {record["total"] for record in records} == {TOTAL_USD}


def test_kill_on_a_full_disk_costs_no_record(provider: BlockingProvider, tmp_path: Path) -> None:
    ledger = {"url": "sqlite:///var/ledger.db"}
    with small_disk(tmp_path / "var") as disk:
        with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, ledger=ledger) as proxy:
            with request_in_flight(proxy, provider, "held") as responses:
                fill_disk(disk / "filler")
                wait_until(lambda: chat(proxy.base_url, "rejected").status_code == 503, "a rejection")
                provider.release.set()
                wait_until(lambda: len(responses) == 1, "the response of the request in flight")
            wait_until(lambda: any(b'"held"' in file.read_bytes() for file in disk.glob("*.jsonl")), "a journal")
            proxy.kill()
        (disk / "filler").unlink()
        with running_proxy(tmp_path, provider.url, ledger=ledger) as restarted:
            restarted.ledger_url = f"sqlite:///{disk}/ledger.db"
            records = restarted.read_records()

    assert [record["total"] for record in records if record["participant"] == "held"] == [TOTAL_USD]
    assert sorted(record["participant"] for record in records) == sorted(provider.users)
