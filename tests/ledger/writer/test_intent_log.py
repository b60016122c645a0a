"""Intents survive the death of the process in a log beside the database."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.ledger.sample_records import make_intent, make_record, read_bills
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.rows import intent_row
from tornado_proxy.ledger.writer.intent_log import IntentLog, read_intents


def open_log(folder: Path) -> IntentLog:
    log = IntentLog(lambda number: folder / f"intents-{number}")
    log.open()
    return log


def test_appended_intents_are_read_back(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    rows = [intent_row(make_intent("r1")), intent_row(make_intent("r2", session="half a surrogate pair \udc80"))]
    for row in rows:
        log.append(row)
    log.close()

    assert list(read_intents(tmp_path / "intents-0")) == rows


@pytest.mark.parametrize("bytes_lost", [1, 20, 100])
def test_truncated_line_hides_no_other(bytes_lost: int, tmp_path: Path) -> None:
    path = tmp_path / "intents-0"
    log = open_log(tmp_path)
    log.append(intent_row(make_intent("r1")))
    log.append(intent_row(make_intent("r2")))
    os.truncate(path, path.stat().st_size - bytes_lost)  # as a disk that is full in the middle of r2
    log.append(intent_row(make_intent("r3")))
    log.close()

    assert [row["request_id"] for row in read_intents(path)] == ["r1", "r3"]


def test_full_log_is_rotated_and_loses_no_open_intent(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.begin(make_intent("held"))
        for number in range(20_000):
            intent = make_intent(f"r{number}", session="s" * 300)
            await ledger.begin(intent)
            if number % 1000 == 999:
                await ledger.finish(make_record(intent))
            else:
                ledger.finish(make_record(intent))
        assert log_files(tmp_path) == ["2"], "12 MB of intents are three files, of which two are removed"
        await ledger.close()
        again = make_ledger(path)
        await again.open()
        await again.close()

    asyncio.run(run())

    unsettled = [row["request_id"] for row in read_bills(path) if row["basis"] == "unsettled"]
    assert unsettled == ["held"]
    assert len(read_bills(path)) == 20_001
    assert log_files(tmp_path) == []


def test_log_that_cannot_be_rotated_grows_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        block_next_log(tmp_path)
        for number in range(11_000):
            intent = make_intent(f"r{number}", session="s" * 300)
            await ledger.begin(intent)
            ledger.finish(make_record(intent))
        await ledger.begin(make_intent("held"))
        assert ledger.healthy
        await ledger.close()

    asyncio.run(run())

    (log,) = (file for file in tmp_path.glob("*.intents-0"))
    assert log.stat().st_size > 4 * 1024 * 1024
    assert [row["request_id"] for row in read_intents(log)][-1] == "held"


def block_next_log(folder: Path) -> None:
    """Make a folder with the path of the next log file."""
    (log,) = folder.glob("*.intents-0")
    log.with_name(log.name.replace("intents-0", "intents-1")).mkdir()


def log_files(folder: Path) -> list[str]:
    return sorted(file.name.rpartition("-")[2] for file in folder.glob("*.intents-*"))
