"""What the death of a process leaves, and what several processes on one file do to each other: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import ROOT
from tests.ledger.calls import bills, intent, record, stored, stored_ids
from tornado_proxy.ledger.backends import make_ledger


def start(path: Path, job: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.child", str(path), job, name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@contextmanager
def running(path: Path, job: str, *names: str) -> Iterator[list[subprocess.Popen[str]]]:
    children = [start(path, job, name) for name in names]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def read_until(child: subprocess.Popen[str], text: str) -> list[str]:
    """Its lines up to the first that starts with `text`."""
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line.strip())
        if line.startswith(text):
            return lines
    raise AssertionError(f"the child ended without {text!r}")


def read_lines(child: subprocess.Popen[str], count: int) -> list[str]:
    assert child.stdout is not None
    return [child.stdout.readline().strip() for _ in range(count)]


def kill(child: subprocess.Popen[str]) -> list[str]:
    """Kill it; gives the whole lines that it had still said."""
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    return child.stdout.read().splitlines()


def ids(lines: list[str], word: str) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith(f"{word} ")}


def open_once(path: Path) -> None:
    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.close()

    asyncio.run(run())


def test_kill_9_loses_no_request_and_doubles_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    begun: set[str] = set()
    finished: set[str] = set()
    for number, lines in enumerate((1, 7, 100, 901, 2000)):
        with running(path, "load", f"round{number}") as (child,):
            said = read_until(child, "open") + read_lines(child, lines)
            said += kill(child)
        begun |= ids(said, "begun")
        finished |= ids(said, "finished")

    open_once(path)

    basis = {row["request_id"]: row["basis"] for row in bills(path)}
    assert all(count == 1 for count in Counter(stored_ids(path, "bills")).values())
    assert begun <= basis.keys()
    assert {one for one in finished if basis[one] != "reported"} == set()
    # Each of the 20 callers had one call under way at most, promised or not.
    assert len(basis.keys() - begun) <= 5 * 20
    unsettled = [one for one, known in basis.items() if known == "unsettled"]
    assert len(unsettled) <= 5 * 20


def test_a_killed_request_is_unsettled_and_crashed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "hold", "r1") as (child,):
        read_until(child, "begun r1")
        kill(child)

    open_once(path)

    (kept,) = bills(path)
    assert (kept["request_id"], kept["basis"], kept["outcome"]) == ("r1", "unsettled", "crashed")
    assert kept["model_requested"] == "gpt-5.4"
    assert kept["ended_at"] > kept["started_at"]


def test_a_start_does_not_settle_what_a_live_process_has_under_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "hold", "r1", "r2") as (first, second):
        read_until(first, "begun r1")
        read_until(second, "begun r2")
        kill(second)

        open_once(path)

        assert stored_ids(path, "bills") == ["r2"]
        kill(first)
        open_once(path)
        assert stored_ids(path, "bills") == ["r1", "r2"]


def test_a_live_process_finds_the_death_of_another(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def found() -> bool:
        ledger = make_ledger(path)
        await ledger.open()
        with running(path, "hold", "r1") as (child,):
            await asyncio.to_thread(read_until, child, "begun r1")
            assert stored_ids(path, "bills") == []
        async with asyncio.timeout(30):
            while not stored_ids(path, "bills"):  # noqa: ASYNC110  # the ledger looks in its own time
                await asyncio.sleep(0.05)
        await ledger.close()
        return True

    assert asyncio.run(found())
    assert [(one["request_id"], one["basis"]) for one in bills(path)] == [("r1", "unsettled")]


def test_another_name_of_the_file_has_the_same_writers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    (tmp_path / "elsewhere").mkdir()
    with running(path, "hold", "r1") as (child,):
        read_until(child, "begun r1")
        other = tmp_path / "elsewhere" / "name.db"
        other.symlink_to(path)

        open_once(other)

        assert stored_ids(path, "bills") == []


def test_processes_that_start_at_once_share_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "load", "a", "b", "c") as children:
        said = [read_until(child, "open") + read_lines(child, 200) for child in children]
        said = [lines + kill(child) for lines, child in zip(said, children, strict=True)]

    open_once(path)

    kept = stored_ids(path, "bills")
    assert len(kept) == len(set(kept))
    for lines in said:
        assert ids(lines, "begun") <= set(kept)


def test_files_of_dead_processes_are_swept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with running(path, "load", "a") as (child,):
        read_until(child, "open")
        kill(child)

    open_once(path)

    assert sorted(os.listdir(tmp_path)) == ["ledger.db", "ledger.db-open"]


def cut_short_the_journal(folder: Path) -> None:
    (journal,) = folder.glob("*.jsonl")
    with journal.open("a") as file:
        file.write('{"request_id": "cut sho')


def test_the_journal_of_a_dead_process_is_read_before_its_intents_are_settled(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        one = intent("r1")
        await ledger.begin(one)
        await ledger.close()
        await ledger.finish(record(one, object_id="resp_1", objects=("cntr_1",)))
        cut_short_the_journal(tmp_path)
        await ledger.finish(record(intent("r2")))

    asyncio.run(run())
    open_once(path)

    assert [(row["request_id"], row["basis"]) for row in stored(path)] == [("r1", "reported"), ("r2", "reported")]
    assert {row["object_id"] for row in stored(path, "SELECT * FROM objects")} == {"resp_1", "cntr_1"}
    assert list(tmp_path.glob("*.jsonl")) == []
