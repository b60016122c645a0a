"""A ledger whose records are partitioned by packaging/postgresql/partition.sql keeps its promises."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.harness import ROOT
from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import make_intent
from tests.postgres_server import PostgresServer
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.ledger.archives.archiving import archive_records
from tornado_proxy.ledger.archives.pruning import prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import UsageFilter

SCRIPT = ROOT / "packaging" / "postgresql" / "partition.sql"
NOW = datetime.now(UTC)


def make_old_intent(number: int, days: int) -> RequestIntent:
    return make_intent(f"r{number}", started_at=NOW - timedelta(days=days))


@pytest.fixture
def store(postgres: PostgresServer, postgres_address: PostgresAddress) -> LedgerUnderTest:
    """Return a ledger with ten records of ten months, which is partitioned."""
    store = LedgerUnderTest(postgres_address, fsync=False)
    store.write(*(make_old_intent(number, 30 * number) for number in range(10)))
    partition(postgres, postgres_address)
    return store


def partition(postgres: PostgresServer, address: PostgresAddress) -> None:
    command = [postgres.programs / "psql", "-v", "ON_ERROR_STOP=1", "-f", SCRIPT, address.url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr


def ask(store: LedgerUnderTest, sql: str) -> list[str]:
    assert isinstance(store.address, PostgresAddress)
    with psycopg.connect(store.address.url, autocommit=True) as db:
        db.execute("SET search_path = tornado_proxy")
        return [str(value) for (value,) in db.execute(sql.encode()).fetchall()]


def test_partitioned_ledger_stores_each_record_once_in_the_partition_of_its_month(store: LedgerUnderTest) -> None:
    later = make_intent("later", started_at=NOW.replace(day=1) + timedelta(days=32))
    far = make_intent("far", started_at=NOW + timedelta(days=4000))

    store.write(make_old_intent(3, 90), later, far)
    store.write(later)

    assert sorted(str(record["request_id"]) for record in store.records()) == [
        *("far", "later"),
        *(f"r{number}" for number in range(10)),
    ]
    month = f"{later.started_at:records_%Y_%m}"
    assert ask(
        store, "SELECT tableoid::regclass FROM records WHERE request_id IN ('r3', 'later', 'far') ORDER BY seq"
    ) == [
        *("records_first", month, "records_other"),
    ]
    backend = make_backend(store.address)
    assert sum_records(backend, UsageFilter(), ["day"]) == sum_records(backend, UsageFilter(), ["day"], use_sums=False)


@pytest.mark.parametrize("table", ["records", "records_first", "records_other"])
def test_partitions_are_append_only(store: LedgerUnderTest, table: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match=f"{table} are append-only"):
        ask(store, f"DELETE FROM {table} RETURNING request_id")  # noqa: S608  # a name of the test


def test_partition_without_records_is_dropped_and_the_sums_stay(store: LedgerUnderTest, tmp_path: Path) -> None:
    backend, folder = make_backend(store.address), tmp_path / "archive"
    next_month = (NOW.replace(day=1) + timedelta(days=32)).replace(day=1)
    store.write(make_intent("last", started_at=next_month))  # the last record of a ledger is not pruned
    before = sum_records(backend, UsageFilter(), ["model"])
    assert ask(store, "SELECT drop_empty_record_partitions()") == []
    archive_records(backend, "2999-01-01", folder, lambda _: None)
    assert prune_records(backend, f"{next_month:%Y-%m-%d}", folder).removed == 10

    assert ask(store, "SELECT drop_empty_record_partitions()") == ["records_first"]
    assert sum_records(backend, UsageFilter(), ["model"]) == before

    ask(store, "SELECT add_record_partitions(4)")
    assert len(ask(store, "SELECT inhrelid FROM pg_inherits WHERE inhparent = 'records'::regclass")) == 5
    # A machine that is started again writes a pruned record, whose partition is gone.
    store.write(make_old_intent(3, 90), make_intent("after", started_at=NOW + timedelta(days=70)))
    assert [record["request_id"] for record in store.records()] == ["last", "after"]


def test_ledger_that_was_pruned_before_it_is_partitioned_stores_no_pruned_record_again(
    postgres: PostgresServer, postgres_address: PostgresAddress, tmp_path: Path
) -> None:
    store, backend = LedgerUnderTest(postgres_address, fsync=False), make_backend(postgres_address)
    store.write(make_old_intent(3, 90), make_intent("last", started_at=NOW))
    archive_records(backend, f"{NOW:%Y-%m-%d}", tmp_path / "archive", lambda _: None)
    assert prune_records(backend, f"{NOW:%Y-%m-%d}", tmp_path / "archive").removed == 1
    partition(postgres, postgres_address)

    store.write(make_old_intent(3, 90), make_old_intent(2, 60))

    assert [record["request_id"] for record in store.records()] == ["r2", "last"]
