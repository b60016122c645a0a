from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.ledger.calls import intent, record
from tornado_proxy.ledger.journal import Journal
from tornado_proxy.ledger.rows import record_row


def rows(*names: str) -> list[dict[str, object]]:
    return [record_row(record(intent(name))) for name in names]


def test_a_record_is_kept_once_however_often_it_is_tried(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.keep(rows("r1"))
    journal.keep(rows("r1", "r2"))

    assert [one["request_id"] for one in Journal(tmp_path / "journal").read()] == ["r1", "r2"]
    assert all(journal.holds(one) for one in rows("r1", "r2"))


def test_a_full_journal_keeps_what_it_has_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "journal", most_bytes=4000)
    journal.keep(rows("r1"))
    with caplog.at_level(logging.ERROR):
        journal.keep(rows(*(f"more{number}" for number in range(10))))

    assert "the ledger's journal is full: records wait in memory only" in caplog.messages
    assert [one["request_id"] for one in journal.read()] == ["r1"]
    assert not journal.holds(rows("more0")[0])


def test_what_has_been_written_to_the_ledger_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.keep(rows("r1"))
    journal.clear()

    assert list(journal.read()) == []
    assert not (tmp_path / "journal").exists()
    journal.keep(rows("r1"))
    assert [one["request_id"] for one in journal.read()] == ["r1"]
