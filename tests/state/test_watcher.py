from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.harness import POLL_S, TIMEOUT_S, wait_until
from tests.state.conftest import MakeStore
from tornado_proxy.auth.token_cache import compute_digest
from tornado_proxy.domain.errors import LedgerUnavailable, NotFound
from tornado_proxy.domain.state import State
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.observability import metrics
from tornado_proxy.state import access_keys
from tornado_proxy.state.key_settings import KeySettings
from tornado_proxy.state.store import StateStore
from tornado_proxy.state.watcher import StateWatcher

SETTINGS = KeySettings("build server", "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10")


class Holder:
    """Holds the state that a watcher applied last."""

    def __init__(self) -> None:
        self.state = State()
        self.changed = asyncio.Event()

    def set_state(self, state: State) -> None:
        self.state = state
        self.changed.set()

    async def wait_for(self, generation: int) -> None:
        """Wait until a generation was applied."""
        while self.state.generation != generation:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), TIMEOUT_S)


@asynccontextmanager
async def watching(store: StateStore) -> AsyncIterator[tuple[StateWatcher, Holder]]:
    holder = Holder()
    watcher = StateWatcher(store, holder.set_state)
    await watcher.open()
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher, holder
    finally:
        task.cancel()
        await watcher.close()


def test_change_of_one_process_is_applied_there_at_once_and_in_another_by_the_next_poll(
    make_store: MakeStore,
) -> None:
    async def run() -> None:
        async with watching(make_store()) as (first, own), watching(make_store()) as (_, other):
            key, secret = await first.change(lambda store: access_keys.create(store, "admin", SETTINGS))
            assert own.state.access_keys[compute_digest(secret.reveal())].id == key.id
            await other.wait_for(1)
            assert other.state == own.state

            await first.change(lambda store: access_keys.revoke(store, "admin", key.id))
            assert own.state.access_keys == {}
            await other.wait_for(2)
            assert other.state.access_keys == {}

    asyncio.run(run())


def test_refused_change_leaves_the_state(make_store: MakeStore) -> None:
    async def run() -> None:
        async with watching(make_store()) as (watcher, holder):
            with pytest.raises(NotFound):
                await watcher.change(lambda store: access_keys.rotate(store, "admin", "ak_none", timedelta()))
            assert holder.state == State()

    asyncio.run(run())


def read_failures() -> float:
    return metrics.STATE_READ_FAILURES._value.get()  # type: ignore[no-any-return]  # prometheus_client has no reader


def test_failing_database_leaves_the_last_state_is_logged_once_and_counted(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tornado_proxy.state.watcher._POLL_INTERVAL_S", POLL_S)

    async def run() -> None:
        operator = make_store()
        access_keys.create(operator, "cli:ada", SETTINGS)
        async with watching(make_store()) as (watcher, holder):
            known = holder.state
            with operator.reading() as db:
                db.run("ALTER TABLE meta RENAME TO moved_away")
            count = read_failures()
            await asyncio.to_thread(wait_until, lambda: read_failures() >= count + 3, "three failed polls")
            assert holder.state == known
            with pytest.raises(LedgerUnavailable, match="the state cannot be changed: "):
                await watcher.change(lambda store: access_keys.create(store, "admin", SETTINGS))

            # Read again although the generation is the same: the database may have been restored from a backup.
            with operator.reading() as db:
                db.run("DELETE FROM access_key_secrets")
                db.run("ALTER TABLE moved_away RENAME TO meta")
            async with asyncio.timeout(TIMEOUT_S):
                while holder.state == known:
                    holder.changed.clear()
                    await holder.changed.wait()
            assert holder.state == State(1, {})

    asyncio.run(run())

    messages = [record.getMessage() for record in caplog.records if "can be read" in record.getMessage()]
    failure = "the state cannot be read; the last known one stays in use"
    assert [record.getMessage() for record in caplog.records].count(failure) == 1
    assert messages == ["the state can be read again"]


def test_state_that_cannot_be_read_at_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is the diary of another program, and no database at all" * 100)

    async def run() -> None:
        watcher = StateWatcher(StateStore(make_backend(tmp_path / "ledger.db", fsync=True)), lambda state: None)
        try:
            with pytest.raises(LedgerUnavailable, match=r"the state \(access keys\) cannot be read: .*is damaged"):
                await watcher.open()
        finally:
            await watcher.close()

    asyncio.run(run())
