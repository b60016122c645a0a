"""The requests that run in the other server processes of the ledger, exchanged through a table in its database.

    no page is open    each process writes twice a minute that it runs, and reads each second whether another watches
    a page is open     its process writes that it watches; the others then write their running requests each second

A process without others so writes two rows a minute, and each knows for how many answers it must wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec

from tornado_proxy.dashboard.requests.live_requests import TICK_S, SharedRequests
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.state import process_table
from tornado_proxy.state.process_table import ServerProcess
from tornado_proxy.state.store import StateStore
from tornado_proxy.state.watcher import StateWatcher

#: Seconds between two rows of a process that has nothing to say, and until one that wrote none counts as ended.
_REPEAT_S = 30.0
_ALIVE = timedelta(seconds=2 * _REPEAT_S + 5)

#: How old the requests of a process may be; those of an older row have ended, or it hangs.
_FRESH = timedelta(seconds=5)

#: Seconds after which a page that was not read again no longer counts as open.
_WATCH_S = 5.0

#: Seconds that the first reader of a page waits for the other processes, and between two looks at their answers.
_MAX_WAIT_S, _WAIT_STEP_S = 2.5, 0.2

_DECODER = msgspec.json.Decoder(SharedRequests)


class OtherProcesses:
    """Exchanges running requests with the other processes: run() as a task, list_requests() for each page.

    Args:
        state: Reads and writes the table.
        process_id: The id of this process, unique in the ledger.
        share: Returns the running requests of this process.
    """

    def __init__(self, state: StateWatcher, process_id: str, share: Callable[[], Awaitable[SharedRequests]]) -> None:
        self._state = state
        self._process_id = process_id
        self._share = share
        self._others: tuple[SharedRequests, ...] = ()
        #: In seconds of the monotonic clock.
        self._watched_until = 0.0
        self._written_at = -_REPEAT_S
        #: Set when a page opens, so that the exchange does not wait for its next turn.
        self._opened = asyncio.Event()
        #: Set when all other processes have answered since the page opened, or have taken too long.
        self._answered = asyncio.Event()

    async def list_requests(self) -> tuple[SharedRequests, ...]:
        """Return the requests of the others; waits for them, for at most _MAX_WAIT_S, if no page was open before."""
        now = time.monotonic()
        if self._watched_until < now:
            self._answered.clear()
            self._opened.set()
        self._watched_until = now + _WATCH_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), _MAX_WAIT_S)
        self._answered.set()
        return self._others

    async def run(self) -> None:
        """Exchange requests until cancelled.  While the database fails, the others are not shown."""
        while True:
            self._opened.clear()
            try:
                await self._exchange()
            except LedgerUnavailable:
                self._others = ()
            waits_for_answers = self._watches and not self._answered.is_set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._opened.wait(), _WAIT_STEP_S if waits_for_answers else TICK_S)

    async def leave(self) -> None:
        """Delete the row of this process, which ends."""
        with contextlib.suppress(LedgerUnavailable):
            await self._state.read(self._delete)

    @property
    def _watches(self) -> bool:
        return self._watched_until >= time.monotonic()

    async def _exchange(self) -> None:
        now = datetime.now(UTC)
        others = await self._state.read(lambda store: self._list_others(store, now))
        recent = [other for other in others if now - other.written_at <= _FRESH]
        is_watched = any(other.watches for other in recent)
        if is_watched or self._watches or time.monotonic() - self._written_at >= _REPEAT_S:
            running = msgspec.json.encode(await self._share()).decode() if is_watched else None
            own = ServerProcess(self._process_id, now, self._watches, running)
            await self._state.read(lambda store: self._write(store, own))
            self._written_at = time.monotonic()
        if self._watches:
            answers = [other.running for other in recent if other.running is not None]
            self._others = tuple(_decode(answer) for answer in answers)
            if len(answers) == len(others):
                self._answered.set()

    def _list_others(self, store: StateStore, now: datetime) -> list[ServerProcess]:
        with store.reading() as db:
            return process_table.list_others(db, self._process_id, now - _ALIVE)

    def _write(self, store: StateStore, own: ServerProcess) -> None:
        with store.writing() as db:
            process_table.delete_old(db, own.written_at - _ALIVE)
            process_table.write(db, own)

    def _delete(self, store: StateStore) -> None:
        with store.writing() as db:
            process_table.delete(db, self._process_id)


def _decode(answer: str) -> SharedRequests:
    try:
        return _DECODER.decode(answer)
    except msgspec.DecodeError:
        return SharedRequests()  # of another version, while the processes are upgraded one by one
