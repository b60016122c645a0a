"""The ledger says who asked what, so only the owner of its files reads them."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.writer.journal import Journal


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture(params=[0o022, 0o000], ids=["usual umask", "open umask"])
def umask(request: pytest.FixtureRequest) -> object:
    old = os.umask(request.param)
    yield
    os.umask(old)


async def write(path: Path) -> dict[str, int]:
    """Return the modes of all files while the ledger is open."""
    ledger = make_ledger(path, fsync=False)
    await ledger.open()
    await ledger.begin(make_intent("req_1"))
    await ledger.finish(make_record(make_intent("req_1")))
    found = modes(path.parent)
    await ledger.close()
    return found


@pytest.mark.usefixtures("umask")
def test_every_file_of_a_ledger_is_its_owner_s_alone(tmp_path: Path) -> None:
    found = asyncio.run(write(tmp_path / "ledger.db"))

    assert len(found) >= 4
    assert set(found.values()) == {0o600}, found


@pytest.mark.usefixtures("umask")
def test_journal_is_its_owner_s_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.reserve()

    assert set(modes(tmp_path).values()) == {0o600}


def test_mode_that_an_operator_has_widened_stays(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    path.chmod(0o640)

    found = asyncio.run(write(path))

    assert (found["ledger.db"], found["ledger.db-wal"]) == (0o640, 0o640)
