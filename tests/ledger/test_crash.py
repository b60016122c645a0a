"""The death of a process loses and doubles no request, and several processes may share one file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.forked_program import ForkedProgram, start_program
from tests.ledger.sample_records import make_intent, make_record, read_bills, read_ids, read_rows
from tornado_proxy.ledger.backends import make_ledger

Child = subprocess.Popen[str] | ForkedProgram


def start(path: Path, job: str, name: str) -> Child:
    return start_program("tests.ledger.child", [str(path), job, name], os.environ, pipes=["stdout"])


@contextmanager
def running(path: Path, job: str, *names: str) -> Iterator[list[Child]]:
    children = [start(path, job, name) for name in names]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def read_until(child: Child, text: str) -> list[str]:
    """Return the lines of a child up to the first that starts with `text`."""
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line.strip())
        if line.startswith(text):
            return lines
    raise AssertionError(f"the child ended without {text!r}")


def read_lines(child: Child, count: int) -> list[str]:
    assert child.stdout is not None
    return [child.stdout.readline().strip() for _ in range(count)]


def kill(child: Child) -> list[str]:
    """Kill a child; return the complete lines that it printed before."""
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    return child.stdout.read().splitlines()


def find_ids(lines: list[str], word: str) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith(f"{word} ")}


def open_once(path: Path) -> None:
    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.close()

    asyncio.run(run())


def test_killed_process_loses_and_doubles_no_request(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    begun: set[str] = set()
    finished: set[str] = set()
    # Kills in the first transaction, in an early one, and in some that commit many records.
    for number, lines in enumerate((1, 7, 100, 901, 2000)):
        with running(path, "load", f"round{number}") as (child,):
            printed = read_until(child, "open") + read_lines(child, lines)
            printed += kill(child)
        begun |= find_ids(printed, "begun")
        finished |= find_ids(printed, "finished")

    open_once(path)

    basis = {row["request_id"]: row["basis"] for row in read_bills(path)}
    assert all(count == 1 for count in Counter(read_ids(path, "bills")).values())
    assert begun <= basis.keys()
    assert {request_id for request_id in finished if basis[request_id] != "reported"} == set()
    # Each of the 20 callers has at most one request under way, whether or not its promise was printed.
    assert len(basis.keys() - begun) <= 5 * 20
    unsettled = [request_id for request_id, value in basis.items() if value == "unsettled"]
    assert len(unsettled) <= 5 * 20


def test_request_of_a_killed_process_is_unsettled_and_crashed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "hold", "r1") as (child,):
        read_until(child, "begun r1")
        kill(child)

    open_once(path)

    (row,) = read_bills(path)
    assert (row["request_id"], row["basis"], row["outcome"]) == ("r1", "unsettled", "crashed")
    assert row["model_requested"] == "gpt-5.4"
    assert row["ended_at"] > row["started_at"]


@pytest.mark.parametrize(
    ("job", "outcome"), [("ahead", "completed"), ("finish", "completed"), ("end", "client_closed")]
)
def test_record_that_waits_for_its_commit_survives_the_death_of_the_process(
    tmp_path: Path, job: str, outcome: str
) -> None:
    path = tmp_path / "ledger.db"
    with running(path, job, "r1") as (child,):
        read_until(child, "begun r1")
        kill(child)

    open_once(path)

    assert [(row["basis"], row["outcome"]) for row in read_bills(path)] == [("reported", outcome)]
    assert sorted(os.listdir(tmp_path)) == ["ledger.db", "ledger.db-open"]


def test_start_does_not_settle_requests_of_a_live_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "hold", "r1", "r2") as (first, second):
        read_until(first, "begun r1")
        read_until(second, "begun r2")
        kill(second)

        open_once(path)

        assert read_ids(path, "bills") == ["r2"]
        kill(first)
        open_once(path)
        assert read_ids(path, "bills") == ["r1", "r2"]


def test_live_process_detects_the_death_of_another(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def detect() -> bool:
        ledger = make_ledger(path)
        await ledger.open()
        with running(path, "hold", "r1") as (child,):
            await asyncio.to_thread(read_until, child, "begun r1")
            assert read_ids(path, "bills") == []
        async with asyncio.timeout(30):
            while not read_ids(path, "bills"):  # noqa: ASYNC110  # the writer thread searches on its own schedule
                await asyncio.sleep(0.05)
        await ledger.close()
        return True

    assert asyncio.run(detect())
    assert [(row["request_id"], row["basis"]) for row in read_bills(path)] == [("r1", "unsettled")]


def test_symbolic_link_to_the_file_has_the_same_locks(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    (tmp_path / "elsewhere").mkdir()
    with running(path, "hold", "r1") as (child,):
        read_until(child, "begun r1")
        other = tmp_path / "elsewhere" / "name.db"
        other.symlink_to(path)

        open_once(other)

        assert read_ids(path, "bills") == []


def test_processes_that_start_together_share_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "load", "a", "b", "c") as children:
        printed = [read_until(child, "open") + read_lines(child, 200) for child in children]
        printed = [lines + kill(child) for lines, child in zip(printed, children, strict=True)]

    open_once(path)

    stored = read_ids(path, "bills")
    assert len(stored) == len(set(stored))
    for lines in printed:
        assert find_ids(lines, "begun") <= set(stored)


def test_files_of_dead_processes_are_deleted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "load", "a") as (child,):
        read_until(child, "open")
        kill(child)

    open_once(path)

    assert sorted(os.listdir(tmp_path)) == ["ledger.db", "ledger.db-open"]


def truncate_journal(folder: Path) -> None:
    (journal,) = folder.glob("*.jsonl")
    with journal.open("a") as file:
        file.write('{"request_id": "cut sho')


def test_journal_of_a_dead_process_is_read_before_its_intents_are_settled(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        intent = make_intent("r1")
        await ledger.begin(intent)
        await ledger.close()
        await ledger.finish(make_record(intent, object_id="resp_1", objects=("cntr_1",)))
        truncate_journal(tmp_path)
        await ledger.finish(make_record(make_intent("r2")))

    asyncio.run(run())
    open_once(path)

    assert [(row["request_id"], row["basis"]) for row in read_rows(path)] == [("r1", "reported"), ("r2", "reported")]
    assert {row["object_id"] for row in read_rows(path, "SELECT * FROM objects")} == {"resp_1", "cntr_1"}
    assert list(tmp_path.glob("*.jsonl")) == []
