"""Which processes write a ledger from this machine: each holds a lock on a file of its own for as long as it lives.

    ledger.db-open                   held while a process opens the ledger, so that one at a time does
    ledger.db-writer-<id>            held by the writer <id>; the kernel frees the lock however the process dies
    ledger.db-writer-<id>.jsonl      its journal: records that it could not write
    ledger.db-writer-<id>.intents-0  its intents, where they are not kept in the database at once

A writer whose lock is free, or whose lock file is gone, is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class ProcessLocks:
    """The writers whose files stand beside `path`, this process among them as `own`.  Satisfies store.Liveness."""

    def __init__(self, path: Path) -> None:
        # Locks stand beside the file itself: two names of one file must not have two sets of writers.
        self._path = path.resolve()
        self.own = uuid.uuid4().hex
        self._lock: IO[bytes] | None = None
        self._opening = False

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Keep other processes from opening or settling at the same time; within itself it changes nothing."""
        if self._opening:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f"{self._path.name}-open").open("ab") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            self._opening = True
            try:
                yield
            finally:
                self._opening = False

    def register(self) -> None:
        """Take the lock of this process, unless it has it.  Within opening()."""
        if self._lock is None:
            self._lock = self._file(self.own).open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def leave(self, *, keep_file: bool = False) -> None:
        """Give the lock back; the files are kept where something in them waits to be adopted."""
        if self._lock is None:
            return
        if not keep_file:
            self.forget(self.own)
        self._lock.close()
        self._lock = None

    def dead(self, writer: str) -> bool:
        """Whether a writer is another process that is gone."""
        if writer == self.own:
            return False
        try:
            descriptor = os.open(self._file(writer), os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    def resign(self) -> None:
        """Nothing: leave() does it, and the kernel."""

    def list_dead(self) -> list[str]:
        """All dead writers that left a file.  Within opening(), so that none of them is just about to take its lock."""
        start = self._file("").name
        names = {
            file.name.removeprefix(start).partition(".")[0] for file in self._path.parent.glob(f"{glob.escape(start)}*")
        }
        return sorted(writer for writer in names if self.dead(writer))

    def journal(self, writer: str) -> Path:
        """Where a writer keeps the records that it could not write."""
        return self._file(f"{writer}.jsonl")

    def intents(self, writer: str, number: int) -> Path:
        """Where a writer keeps its intents: one file after the other."""
        return self._file(f"{writer}.intents-{number}")

    def intent_files(self, writer: str) -> list[Path]:
        """Those of them that are there."""
        return sorted(self._path.parent.glob(f"{glob.escape(self._file(writer).name)}.intents-*"))

    def forget(self, writer: str) -> None:
        """Remove a writer's files."""
        for file in (*self.intent_files(writer), self.journal(writer), self._file(writer)):
            file.unlink(missing_ok=True)

    def _file(self, end: str) -> Path:
        return self._path.with_name(f"{self._path.name}-writer-{end}")
