"""A backup of an SQLite ledger is restored, and its budgets file is left as it was."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.budgets.conftest import MONTH, NOW, BudgetsUnderTest, create_ledger, record, usd
from tests.budgets.keepers import open_keeper, wait_for_figures
from tornado_proxy.budgets import keeper
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.usage import Basis


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    """Return the file of an empty ledger."""
    path = tmp_path / "ledger.db"
    create_ledger(path)
    return path


@pytest.fixture
def budgets(ledger_file: Path) -> Iterator[BudgetsUnderTest]:
    """Return its budgets, which no process has open."""
    under_test = BudgetsUnderTest(ledger_file)
    yield under_test
    under_test.close()


def start(budgets: BudgetsUnderTest) -> None:
    """Open the budgets as the only process."""
    budgets.open().follow(CounterPlan((MONTH,)), NOW)


def stop(budgets: BudgetsUnderTest) -> None:
    store = budgets.opened.pop()
    budgets.kill(store)
    store.close()


def copy_database(source: Path, copy: Path) -> None:
    with closing(sqlite3.connect(source)) as source_db, closing(sqlite3.connect(copy)) as copy_db:
        source_db.backup(copy_db)


def restore(backup: Path, ledger_file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{ledger_file}{suffix}").unlink(missing_ok=True)
    backup.replace(ledger_file)


def test_records_after_a_restored_backup_are_counted(budgets: BudgetsUnderTest, ledger_file: Path) -> None:
    start(budgets)
    budgets.write(record("a", "0.1"))
    backup = ledger_file.with_name("backup.db")
    copy_database(ledger_file, backup)
    for request_id in ("b", "c"):
        budgets.reserve(request_id, "0.7", "9")
    budgets.write(record("b", "0.2"), record("c", "0.4", basis=Basis.UNSETTLED))
    budgets.store.folding.fold()
    assert budgets.figures() == {"": usd("0.7", "0.7")}
    stop(budgets)

    restore(backup, ledger_file)
    start(budgets)
    assert budgets.figures() == {"": usd("0.1", "0")}
    budgets.write(record("d", "0.05"))
    budgets.store.folding.fold()

    assert budgets.figures() == {"": usd("0.15", "0")}
    assert list(budgets.store.iterate_reservations()) == []


def test_ledger_that_is_restored_under_a_running_process_is_counted(
    budgets: BudgetsUnderTest, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_COMPARE_S", 0.05)
    monkeypatch.setattr(keeper, "_COMPARE_FACTOR", 0)
    at = datetime.now(UTC)
    budgets.write(record("a", "0.1", at=at))
    backup = ledger_file.with_name("backup.db")
    copy_database(ledger_file, backup)
    budgets.write(record("b", "0.2", at=at))

    async def run() -> None:
        async with open_keeper(budgets) as running:
            await wait_for_figures(running, "0.3", "0")
            copy_database(backup, ledger_file)  # as sqlite3 does with .restore
            await wait_for_figures(running, "0.1", "0")

    asyncio.run(run())


def test_records_of_a_newer_ledger_are_added_to_older_budgets(budgets: BudgetsUnderTest, ledger_file: Path) -> None:
    start(budgets)
    budgets.write(record("a", "0.1"))
    budgets.reserve("b", "0.7", "9")
    budgets.store.folding.fold()
    backup = ledger_file.with_name("backup.db-budgets")
    budgets_file = ledger_file.with_name(ledger_file.name + "-budgets")
    copy_database(budgets_file, backup)
    budgets.write(record("b", "0.2"))
    budgets.store.folding.fold()
    stop(budgets)

    restore(backup, budgets_file)
    start(budgets)

    assert budgets.figures() == {"": usd("0.3", "0")}
