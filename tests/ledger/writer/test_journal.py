from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.ledger.calls import intent, record
from tornado_proxy.ledger.rows import record_row
from tornado_proxy.ledger.writer.journal import Journal


def rows(*names: str) -> list[dict[str, object]]:
    return [record_row(record(intent(name))) for name in names]


def test_a_record_is_kept_once_however_often_it_is_tried(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(rows("r1"))
    journal.append(rows("r1", "r2"))

    assert [one["request_id"] for one in Journal(tmp_path / "journal").read()] == ["r1", "r2"]
    assert all(journal.holds(one) for one in rows("r1", "r2"))


def test_a_full_journal_keeps_what_it_has_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=4000)
    journal.append(rows("r1"))
    with caplog.at_level(logging.ERROR):
        journal.append(rows(*(f"more{number}" for number in range(10))))

    assert "the ledger's journal is full; records wait in memory only" in caplog.messages
    assert [one["request_id"] for one in journal.read()] == ["r1"]
    assert not journal.holds(rows("more0")[0])


@pytest.mark.parametrize("reserved", [True, False])
def test_what_has_been_written_to_the_ledger_is_forgotten(tmp_path: Path, reserved: bool) -> None:
    journal = Journal(tmp_path / "journal")
    if reserved:
        journal.reserve()
    journal.append(rows("r1"))
    journal.clear()

    assert list(journal.read()) == []
    journal.append(rows("r1"))
    assert [one["request_id"] for one in journal.read()] == ["r1"]


def test_space_is_taken_in_advance_and_is_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.reserve()
    assert (tmp_path / "journal").stat().st_blocks * 512 >= 4 * 1024 * 1024
    assert list(journal.read()) == []

    journal.append(rows("r1"))
    journal.append(rows("r2"))

    assert [one["request_id"] for one in Journal(tmp_path / "journal").read()] == ["r1", "r2"]
    assert (tmp_path / "journal").stat().st_size == 4 * 1024 * 1024


def test_a_journal_that_outgrew_its_space_has_it_again_when_it_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.reserve()
    journal.append([{**rows("r1")[0], "usage": "x" * 5_000_000}])
    assert (tmp_path / "journal").stat().st_size > 5_000_000

    journal.clear()

    assert (tmp_path / "journal").stat().st_size == 4 * 1024 * 1024
    assert list(journal.read()) == []


@pytest.mark.parametrize("reserved", [True, False])
def test_another_hand_goes_on_where_the_first_one_stopped(tmp_path: Path, reserved: bool) -> None:
    journal = Journal(tmp_path / "journal")
    if reserved:
        journal.reserve()
    journal.append(rows("r1"))
    Journal(tmp_path / "journal").append(rows("r2"))

    assert [one["request_id"] for one in journal.read()] == ["r1", "r2"]


def test_a_line_that_was_cut_short_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).append(rows("r1", "r2"))
    os.truncate(path, path.stat().st_size - 100)
    Journal(path).append(rows("r3"))

    assert [one["request_id"] for one in Journal(path).read()] == ["r1", "r3"]
