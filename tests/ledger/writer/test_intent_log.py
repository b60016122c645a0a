from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.ledger.calls import bills, intent, record
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.rows import intent_row
from tornado_proxy.ledger.writer.intent_log import IntentLog, read_intents


def make(folder: Path) -> IntentLog:
    log = IntentLog(lambda number: folder / f"intents-{number}")
    log.open()
    return log


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    log = make(tmp_path)
    rows = [intent_row(intent("r1")), intent_row(intent("r2", session="half a pair \udc80"))]
    for row in rows:
        log.append(row)
    log.close()

    assert list(read_intents(tmp_path / "intents-0")) == rows


@pytest.mark.parametrize("bytes_lost", [1, 20, 100])
def test_a_line_that_was_cut_short_hides_no_other(bytes_lost: int, tmp_path: Path) -> None:
    path = tmp_path / "intents-0"
    log = make(tmp_path)
    log.append(intent_row(intent("r1")))
    log.append(intent_row(intent("r2")))
    os.truncate(path, path.stat().st_size - bytes_lost)  # as a disk leaves it that was full in the middle of r2
    log.append(intent_row(intent("r3")))
    log.close()

    assert [one["request_id"] for one in read_intents(path)] == ["r1", "r3"]


def test_a_log_that_has_grown_is_followed_by_another_and_forgets_no_call_under_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.begin(intent("held"))
        for number in range(20_000):
            one = intent(f"r{number}", session="s" * 300)
            await ledger.begin(one)
            if number % 1000 == 999:
                await ledger.finish(record(one))
            else:
                ledger.finish(record(one))
        assert log_files(tmp_path) == ["2"], "12 MB of intents are three files, of which two are gone"
        await ledger.close()
        again = make_ledger(path)
        await again.open()
        await again.close()

    asyncio.run(run())

    unsettled = [one["request_id"] for one in bills(path) if one["basis"] == "unsettled"]
    assert unsettled == ["held"]
    assert len(bills(path)) == 20_001
    assert log_files(tmp_path) == []


def test_a_log_that_cannot_be_followed_by_another_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        stand_in_the_way(tmp_path)
        for number in range(11_000):
            one = intent(f"r{number}", session="s" * 300)
            await ledger.begin(one)
            ledger.finish(record(one))
        await ledger.begin(intent("held"))
        assert ledger.healthy
        await ledger.close()

    asyncio.run(run())

    (log,) = (one for one in tmp_path.glob("*.intents-0"))
    assert log.stat().st_size > 4 * 1024 * 1024
    assert [one["request_id"] for one in read_intents(log)][-1] == "held"


def stand_in_the_way(folder: Path) -> None:
    """Have something stand where the next log goes."""
    (log,) = folder.glob("*.intents-0")
    log.with_name(log.name.replace("intents-0", "intents-1")).mkdir()


def log_files(folder: Path) -> list[str]:
    return sorted(one.name.rpartition("-")[2] for one in folder.glob("*.intents-*"))
