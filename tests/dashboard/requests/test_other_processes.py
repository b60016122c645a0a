"""The exchange of running requests between processes, over a real ledger file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tornado_proxy.dashboard.requests import other_processes
from tornado_proxy.dashboard.requests.live_requests import LiveRequest, SharedRequests
from tornado_proxy.dashboard.requests.other_processes import OtherProcesses
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state import process_table
from tornado_proxy.state.process_table import ServerProcess
from tornado_proxy.state.store import StateStore
from tornado_proxy.state.watcher import StateWatcher

NOW = datetime.now(UTC)


def share(name: str) -> SharedRequests:
    """Return the requests of a process of that name."""
    request = LiveRequest(name, NOW, "p", "ada", None, None, "openai", "/v1/responses", None, Decimal("0.25"))
    return SharedRequests((request,), {"p": 3})


@contextlib.asynccontextmanager
async def running(path: Path, name: str) -> AsyncIterator[OtherProcesses]:
    """Run the exchange of one process."""

    async def share_own() -> SharedRequests:
        return share(name)

    state = StateWatcher(StateStore(make_backend(path, fsync=False)), lambda state: None)
    others = OtherProcesses(state, name, share_own)
    task = asyncio.ensure_future(others.run())
    try:
        yield others
    finally:
        task.cancel()
        await others.leave()
        await state.close()


def add_row(path: Path, process: ServerProcess) -> None:
    store = StateStore(make_backend(path, fsync=False))
    with store.writing() as db:
        process_table.write(db, process)
    store.close()


def read_ids(path: Path) -> list[str]:
    store = StateStore(make_backend(path, fsync=False))
    with store.reading() as db:
        ids = [process.id for process in process_table.list_others(db, "", NOW - timedelta(days=1))]
    store.close()
    return ids


def test_page_gets_the_requests_of_the_other_processes_alone(tmp_path: Path) -> None:
    async def look() -> None:
        async with running(tmp_path / "ledger.db", "one") as one:
            assert await one.list_requests() == ()
            async with running(tmp_path / "ledger.db", "two") as two:
                assert await two.list_requests() == (share("one"),)
                # Its page was open before: it does not wait, and sees the other process with a later exchange.
                async with asyncio.timeout(10):
                    while await one.list_requests() != (share("two"),):  # noqa: ASYNC110  # it has no event
                        await asyncio.sleep(0.05)

    asyncio.run(look())
    assert read_ids(tmp_path / "ledger.db") == []


def test_process_that_was_killed_is_waited_for_once_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_processes, "_MAX_WAIT_S", 0.3)
    path, now = tmp_path / "ledger.db", datetime.now(UTC)
    add_row(path, ServerProcess("killed", now - timedelta(seconds=20), running='{"listed":[],"unlisted":{"p":9}}'))
    add_row(path, ServerProcess("long ago", now - timedelta(hours=1)))

    async def look() -> None:
        async with running(path, "one") as one:
            assert await one.list_requests() == ()
            async with asyncio.timeout(0.2):
                assert await one.list_requests() == ()

    asyncio.run(look())
    assert read_ids(path) == ["killed"]


def test_requests_of_another_version_are_left_out(tmp_path: Path) -> None:
    add_row(tmp_path / "ledger.db", ServerProcess("newer", datetime.now(UTC), running='{"listed":[{"id":"r1"}]}'))

    async def look() -> None:
        async with running(tmp_path / "ledger.db", "one") as one:
            assert await one.list_requests() == (SharedRequests(),)

    asyncio.run(look())
