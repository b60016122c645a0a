"""Records that the database refused survive in the journal, once each."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.ledger.columns import RecordRow
from tornado_proxy.ledger.rows import make_record_row
from tornado_proxy.ledger.writer.journal import Journal


def make_rows(*names: str) -> list[RecordRow]:
    return [make_record_row(make_record(make_intent(name))) for name in names]


def test_record_is_stored_once_however_often_it_is_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(make_rows("r1"))
    journal.append(make_rows("r1", "r2"))

    assert [row.request_id for row in Journal(tmp_path / "journal").read()] == ["r1", "r2"]
    assert all(journal.holds(row) for row in make_rows("r1", "r2"))


def test_full_journal_keeps_its_records_and_logs_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=4000)
    journal.append(make_rows("r1"))
    with caplog.at_level(logging.ERROR):
        journal.append(make_rows(*(f"more{number}" for number in range(10))))

    assert "the ledger's journal is full; records wait in memory only" in caplog.messages
    assert [row.request_id for row in journal.read()] == ["r1"]
    assert not journal.holds(make_rows("more0")[0])


@pytest.mark.parametrize("reserved", [True, False])
def test_cleared_journal_is_empty_and_takes_records_again(tmp_path: Path, reserved: bool) -> None:
    journal = Journal(tmp_path / "journal")
    if reserved:
        journal.reserve()
    journal.append(make_rows("r1"))
    journal.clear()

    assert list(journal.read()) == []
    journal.append(make_rows("r1"))
    assert [row.request_id for row in journal.read()] == ["r1"]


def test_reserved_space_is_allocated_and_holds_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.reserve()
    # st_blocks and not st_size: a sparse file reserves no space.
    assert (tmp_path / "journal").stat().st_blocks * 512 >= 4 * 1024 * 1024
    assert list(journal.read()) == []

    journal.append(make_rows("r1"))
    journal.append(make_rows("r2"))

    assert [row.request_id for row in Journal(tmp_path / "journal").read()] == ["r1", "r2"]
    assert (tmp_path / "journal").stat().st_size == 4 * 1024 * 1024


def test_cleared_journal_shrinks_to_its_reserved_space(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.reserve()
    journal.append([replace(make_rows("r1")[0], usage="x" * 5_000_000)])
    assert (tmp_path / "journal").stat().st_size > 5_000_000

    journal.clear()

    assert (tmp_path / "journal").stat().st_size == 4 * 1024 * 1024
    assert list(journal.read()) == []


@pytest.mark.parametrize("reserved", [True, False])
def test_second_journal_object_appends_after_the_first(tmp_path: Path, reserved: bool) -> None:
    journal = Journal(tmp_path / "journal")
    if reserved:
        journal.reserve()
    journal.append(make_rows("r1"))
    Journal(tmp_path / "journal").append(make_rows("r2"))

    assert [row.request_id for row in journal.read()] == ["r1", "r2"]


def test_truncated_line_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).append(make_rows("r1", "r2"))
    os.truncate(path, path.stat().st_size - 100)
    Journal(path).append(make_rows("r3"))

    assert [row.request_id for row in Journal(path).read()] == ["r1", "r3"]
