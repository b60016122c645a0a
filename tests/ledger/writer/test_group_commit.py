"""A ledger behind one writer thread: its state before open(), while the database fails, and after close()."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records


def test_ledger_refuses_requests_before_it_is_open(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger.db")

    assert (ledger.healthy, ledger.reason, ledger.pending) == (False, "not open", 0)
    with pytest.raises(LedgerUnavailable, match="no new requests while the ledger cannot be written: not open"):
        asyncio.run(ledger.begin(make_intent("r1")))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("file/ledger.db", "its folder cannot be written", id="the folder is a file"),
        pytest.param("folder", "cannot be opened for writing", id="the file is a folder"),
    ],
)
def test_ledger_that_cannot_be_opened_names_the_fault(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    ledger = make_ledger(tmp_path / path)

    with pytest.raises(LedgerUnavailable, match=message):
        asyncio.run(ledger.open())
    # Its lock and its intent log must not look like those of a dead process at the next start.
    assert [file.name for file in tmp_path.iterdir() if "-writer-" in file.name] == []


def test_close_before_open_does_nothing(tmp_path: Path) -> None:
    asyncio.run(make_ledger(tmp_path / "ledger.db").close())

    assert list(tmp_path.iterdir()) == []


def test_records_held_by_a_failing_ledger_are_stored_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.begin(make_intent("r1"))
        await ledger.begin(make_intent("r2"))
        path.rename(tmp_path / "aside.db")
        async with asyncio.timeout(30):
            while ledger.healthy:  # noqa: ASYNC110  # the writer thread checks on its own schedule
                await asyncio.sleep(0.01)
        ledger.finish(make_record(make_intent("r1")))
        await ledger.close()
        (tmp_path / "aside.db").rename(path)
        again = make_ledger(path)
        await again.open()
        await again.close()

    asyncio.run(run())

    basis = {row["request_id"]: row["basis"] for row in read_records(make_backend(path), UsageFilter())}
    assert basis == {"r1": "reported", "r2": "unsettled"}
    assert [file.name for file in tmp_path.iterdir() if "-writer-" in file.name] == []
