"""Keeps the state of this process equal to that in the database, which any process can change.

    each second, in a thread:  generation changed? ── no ──> nothing
                                      │ yes
                                      └──> read the state ──> on the event loop: apply(state), log the changes

While the database fails, the last known state stays in use, because a request in between must not fail: the ledger in
the same database decides whether new requests start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.state import State, StateChange
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.observability import metrics
from tornado_proxy.state.store import StateStore

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds between two polls: a change is in effect everywhere within two seconds.
_POLL_INTERVAL_S = 1.0

#: Seconds that close() waits for a query that runs.
_CLOSE_TIMEOUT_S = 1.0


class StateWatcher:
    """Reads and changes the state from one event loop; the store is used in a thread of its own."""

    def __init__(
        self,
        store: StateStore,
        apply: Callable[[State], None],
        notify: Callable[[Sequence[StateChange]], None] = lambda changes: None,
    ) -> None:
        """Keep the functions that are called on the event loop.

        Args:
            store: The store.
            apply: Called with each new state.
            notify: Called after it with the changes that led to the state; not for those before the start.
        """
        self._store = store
        self._apply = apply
        self._notify = notify
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._generation = 0
        #: False from a failed poll to the next one that succeeds.
        self._is_readable = True

    async def open(self) -> None:
        """Read the state for the first time.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        try:
            state = await self._in_thread(self._store.read)
        except StoreError as error:
            raise LedgerUnavailable(f"the state (access keys) cannot be read: {error}") from error
        self._use(state)

    async def run(self) -> None:
        """Poll the state until cancelled."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL_S)
            await self._refresh()

    async def change(self, make_change: Callable[[StateStore], _Result]) -> _Result:
        """Run `make_change` in the store's thread, and apply the new state.

        Raises:
            LedgerUnavailable: the database fails, and nothing was changed.
        """
        try:
            result = await self._in_thread(make_change, self._store)
        except StoreError as error:
            message = "the state cannot be changed"
            raise LedgerUnavailable(f"{message}: {error}", client_message=message) from error
        await self._refresh()
        return result

    async def read(self, query: Callable[[StateStore], _Result]) -> _Result:
        """Run `query` in the store's thread.

        Raises:
            LedgerUnavailable: the database fails.
        """
        try:
            return await self._in_thread(query, self._store)
        except StoreError as error:
            message = "the state cannot be read"
            raise LedgerUnavailable(f"{message}: {error}", client_message=message) from error

    async def close(self) -> None:
        """Close the connection and end the thread."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._in_thread(self._store.close), _CLOSE_TIMEOUT_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _refresh(self) -> None:
        # After a failed poll the generation says nothing: the database may have been restored with the same number.
        known = self._generation if self._is_readable else None
        try:
            new = await self._in_thread(self._read_new, known)
        except StoreError as error:
            metrics.STATE_READ_FAILURES.inc()
            if self._is_readable:
                self._is_readable = False
                _log.error("the state cannot be read; the last known one stays in use", extra={"reason": str(error)})
            return
        if not self._is_readable:
            self._is_readable = True
            _log.warning("the state can be read again")
        if new is not None:
            state, changes = new
            self._use(state)
            _log_changes(changes)
            self._notify(changes)

    def _read_new(self, known: int | None) -> tuple[State, list[StateChange]] | None:
        """Return the state and the changes that led to it, None if its generation is `known`."""
        # Another generation, not a later one: a database that was restored from a backup has an earlier one.
        if self._store.read_generation() == known:
            return None
        return self._store.read(), self._store.list_changes(self._generation)

    def _use(self, state: State) -> None:
        self._generation = state.generation
        metrics.STATE_GENERATION.set(state.generation)
        self._apply(state)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _log_changes(changes: list[StateChange]) -> None:
    """Log who changed what.  Each process logs it, so that the log shows when a change is in effect where."""
    for change in changes:
        _log.info(
            "state changed",
            extra={
                "generation": change.generation,
                "at": format_time(change.at),
                "actor": change.actor,
                "action": change.action,
                "subject": change.subject,
            },
        )
