"""Which processes of this machine write a ledger: each holds a lock on a file of its own for as long as it lives.

    ledger.db-open                   locked while a process opens the ledger or searches for dead processes
    ledger.db-writer-<id>            locked by the writer <id>; the kernel frees the lock however the process dies
    ledger.db-writer-<id>.jsonl      its journal: records that it could not write
    ledger.db-writer-<id>.intents-0  its intent log: records, and intents unless they go to the database at once

A writer is dead if its lock is free or its lock file does not exist.
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

from tornado_proxy.ledger.file_modes import create_private


class ProcessLocks:
    """The lock files beside `path`; `writer_id` names this process.  Satisfies ledger.database.Liveness."""

    #: The kernel frees the lock of a process with the process.
    grace_s = 0.0

    def __init__(self, path: Path) -> None:
        # Resolve symbolic links: processes that open one file by two names must see each other's locks.
        self._path = path.resolve()
        self.writer_id = uuid.uuid4().hex
        self._lock: IO[bytes] | None = None
        self._has_opening_lock = False

    @contextlib.contextmanager
    def hold_opening_lock(self) -> Iterator[None]:
        """Hold the lock against other processes that open the ledger or search for dead ones; may be nested."""
        if self._has_opening_lock:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._opening_path(), "ab", opener=create_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._has_opening_lock = True
            try:
                yield
            finally:
                self._has_opening_lock = False

    def register(self) -> None:
        """Take the lock of this process, unless it has it.  Needs hold_opening_lock()."""
        if self._lock is None:
            # Python opens files close-on-exec.  flock() locks belong to the open file, so a child that inherited it
            # would keep the lock of a dead process.
            self._lock = os.fdopen(create_private(self._file(self.writer_id), os.O_WRONLY | os.O_APPEND), "ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self, *, keep_files: bool = False) -> None:
        """Free the lock of this process; `keep_files` leaves its files to the process that opens the ledger next."""
        if self._lock is None:
            return
        # Delete before the lock is free: another process must not find the files of a dead writer disappearing.
        if not keep_files:
            self.delete_files(self.writer_id)
        self._lock.close()
        self._lock = None

    def is_dead(self, writer: str) -> bool:
        """Return True if a writer is another process and its lock is free."""
        if writer == self.writer_id:
            return False
        try:
            file = os.open(self._file(writer), os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(file)

    def has_died_here(self, writer: str) -> bool:
        """Return True if a writer of this machine has died, and no process has written its files to the ledger yet."""
        return self._file(writer).exists() and self.is_dead(writer)

    @contextlib.contextmanager
    def hold_dead(self, writer: str) -> Iterator[bool]:
        """Return True in a `with` block if a writer is dead: its lock is never taken again."""
        yield self.is_dead(writer)

    def release(self) -> None:
        """Do nothing: close() frees the lock, or the kernel does."""

    def list_dead(self) -> list[str]:
        """Return the dead writers that left a file.

        Needs hold_opening_lock(): without it, a process that has made its file and not locked it yet would seem dead.
        """
        prefix = self._file("").name
        writers = {
            file.name.removeprefix(prefix).partition(".")[0]
            for file in self._path.parent.glob(f"{glob.escape(prefix)}*")
        }
        return sorted(writer for writer in writers if self.is_dead(writer))

    def has_dead(self) -> bool:
        """Return True if a dead writer left a file.  Never waits: False while another process opens or searches."""
        with open(self._opening_path(), "ab", opener=create_private) as file:
            try:
                # Without it, the look at a lock would keep a process that has just made its file from taking it.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return bool(self.list_dead())

    def journal_path(self, writer: str) -> Path:
        """Return the path of a writer's journal."""
        return self._file(f"{writer}.jsonl")

    def intent_log_path(self, writer: str, number: int) -> Path:
        """Return the path of a writer's intent log; the logs of one writer are numbered from 0."""
        return self._file(f"{writer}.intents-{number}")

    def find_intent_logs(self, writer: str) -> list[Path]:
        """Return the paths of a writer's intent logs that exist, oldest first."""
        paths = self._path.parent.glob(f"{glob.escape(self._file(writer).name)}.intents-*")
        return sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))

    def delete_files(self, writer: str) -> None:
        """Delete the files of a writer."""
        for file in (*self.find_intent_logs(writer), self.journal_path(writer), self._file(writer)):
            file.unlink(missing_ok=True)

    def _opening_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}-open")

    def _file(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}-writer-{suffix}")
