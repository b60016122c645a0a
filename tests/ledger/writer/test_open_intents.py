"""A full intent log is rotated; its open intents move to the database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from tests.ledger.sample_records import make_intent, make_record, read_bills
from tornado_proxy.domain.record import Outcome
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.writer.intent_log import OpenIntents, read_intents, read_records
from tornado_proxy.ledger.writer.process_locks import ProcessLocks


def test_rotation_returns_the_full_file_and_its_open_intents(tmp_path: Path) -> None:
    locks = ProcessLocks(tmp_path / "ledger.db")
    intents = OpenIntents(locks)
    intents.open()
    assert not intents.is_full
    for number in range(3):
        intents.begin(make_intent(f"r{number}", session="s" * 1_500_000))
    intents.end("r1")

    assert intents.is_full
    rotated = intents.rotate()

    assert rotated.file == locks.intent_log_path(locks.writer_id, 0)
    assert [row.request_id for row in rotated.open_intents] == ["r0", "r2"]
    assert not intents.is_full
    assert intents.close()


def test_log_without_open_intents_leaves_nothing_to_the_next_start(tmp_path: Path) -> None:
    intents = OpenIntents(ProcessLocks(tmp_path / "ledger.db"))
    intents.open()
    intents.begin(make_intent("r1"))
    intents.end("r1")
    intents.check()

    assert not intents.close()


def test_full_log_is_rotated_and_loses_no_open_intent(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        # Open over all rotations, so that each of them must move it to the database.
        await ledger.begin(make_intent("held"))
        for number in range(4_000):
            intent = make_intent(f"r{number}", session="s" * 4_100)
            await ledger.begin(intent)
            if number % 200 == 199:
                await ledger.finish(make_record(intent))
            else:
                ledger.finish(make_record(intent))
        assert log_files(tmp_path) == ["9"], "38 MB of intents and records are ten files, nine of which are removed"
        await ledger.close()
        again = make_ledger(path)
        await again.open()
        await again.close()

    asyncio.run(run())

    unsettled = [row["request_id"] for row in read_bills(path) if row["basis"] == "unsettled"]
    assert unsettled == ["held"]
    assert len(read_bills(path)) == 4_001
    assert log_files(tmp_path) == []


def test_log_that_cannot_be_rotated_grows_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        block_next_log(tmp_path)
        for number in range(2_200):
            intent = make_intent(f"r{number}", session="s" * 4_100)
            await ledger.begin(intent)
            ledger.finish(make_record(intent))
        await ledger.begin(make_intent("held"))
        assert ledger.healthy
        await ledger.close()

    asyncio.run(run())

    (log,) = (file for file in tmp_path.glob("*.intents-0"))
    assert log.stat().st_size > 4 * 1024 * 1024
    assert [row.request_id for row in read_intents(log)][-1] == "held"


def open_intents(folder: Path) -> tuple[OpenIntents, Path]:
    """Return open intents in `folder`, and the path of their first log."""
    locks = ProcessLocks(folder / "ledger.db")
    intents = OpenIntents(locks)
    intents.open()
    return intents, locks.intent_log_path(locks.writer_id, 0)


def test_record_that_ends_later_is_written_once_and_has_its_later_end(tmp_path: Path) -> None:
    intents, log = open_intents(tmp_path)
    record = make_record(make_intent("r1"))
    ahead = intents.log_record(record)
    size = log.stat().st_size

    row = intents.log_record(replace(record, ended_at=record.ended_at + timedelta(seconds=7)))

    assert log.stat().st_size == size
    assert str(row.ended_at) > str(ahead.ended_at)
    assert structs.replace(row, ended_at=ahead.ended_at) == ahead


def test_record_that_ends_otherwise_is_written_again_and_its_last_line_counts(tmp_path: Path) -> None:
    intents, log = open_intents(tmp_path)
    record = make_record(make_intent("r1"))
    intents.log_record(record)

    row = intents.log_record(replace(record, outcome=Outcome.CLIENT_CLOSED, status=499))

    assert (row.outcome, row.status) == ("client_closed", 499)
    assert [(line.outcome, line.status) for line in read_records(log)] == [("client_closed", 499)]


def test_record_whose_request_has_not_ended_moves_to_the_next_log(tmp_path: Path) -> None:
    intents, log = open_intents(tmp_path)
    for number in range(3):
        intents.log_record(make_record(make_intent(f"r{number}", session="s" * 1_500_000)))
    intents.end("r1")

    assert intents.is_full
    rotated = intents.rotate()

    assert rotated.file == log
    (current,) = set(tmp_path.glob("*.intents-*")) - {log}
    assert [row.request_id for row in read_records(current)] == ["r0", "r2"]


def test_record_ahead_of_its_end_leaves_the_log_to_the_next_start(tmp_path: Path) -> None:
    intents, _ = open_intents(tmp_path)
    intents.log_record(make_record(make_intent("r1")))

    assert intents.close()


def test_record_that_cannot_be_logged_is_reported_once_and_returned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    intents, _ = open_intents(tmp_path)
    intents.close()  # each write fails from now on, as on a full disk

    rows = [intents.log_record(make_record(make_intent(f"r{number}"))) for number in range(3)]

    assert [row.request_id for row in rows] == ["r0", "r1", "r2"]
    assert [line.message for line in caplog.records] == ["the ledger's intent log cannot be written"]


def block_next_log(folder: Path) -> None:
    """Make a folder with the path of the next log file."""
    (log,) = folder.glob("*.intents-0")
    log.with_name(log.name.replace("intents-0", "intents-1")).mkdir()


def log_files(folder: Path) -> list[str]:
    return sorted(file.name.rpartition("-")[2] for file in folder.glob("*.intents-*"))


def test_rows_of_many_open_requests_are_the_same_for_the_first_and_the_last(tmp_path: Path) -> None:
    intents, _ = open_intents(tmp_path)
    begun = [make_intent(f"r{number}", session="s1", annotations=(("team", "a"),)) for number in range(300)]
    for intent in begun:
        intents.begin(intent)

    first, last = (intents.log_record(make_record(intent)) for intent in (begun[0], begun[-1]))
    rotated = intents.rotate()

    assert replace(first, request_id="") == replace(last, request_id="")
    assert (first.session, first.annotations) == ("s1", '{"team":"a"}')
    assert [row.request_id for row in rotated.open_intents] == [intent.request_id for intent in begun]
    assert {row.session for row in rotated.open_intents} == {"s1"}
