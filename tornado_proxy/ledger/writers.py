"""Which processes write a ledger file: each holds a lock on a file of its own beside it, for as long as it lives.

    ledger.db-open                   held while a process opens the ledger, so that one at a time does
    ledger.db-writer-<id>            held by the writer <id>; the kernel frees the lock however the process dies
    ledger.db-writer-<id>.jsonl      its journal: records that it could not write

A writer whose lock is free, or whose lock file is gone, is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class Writers:
    """The writers of one file, this process among them as `own`."""

    def __init__(self, path: Path) -> None:
        # Locks stand beside the file itself: two names of one file must not have two sets of writers.
        self._path = path.resolve()
        self.own = uuid.uuid4().hex
        self._lock: IO[bytes] | None = None

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Keep other processes from opening or settling at the same time."""
        with self._path.with_name(f"{self._path.name}-open").open("ab") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield

    def register(self) -> None:
        """Take the lock of this process.  Within opening()."""
        self._lock = self._lock_file(self.own).open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def leave(self, *, keep_file: bool = False) -> None:
        """Give the lock back; its file is kept where a journal waits to be adopted."""
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
            descriptor = os.open(self._lock_file(writer), os.O_RDWR)
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

    def dead_ones(self) -> list[str]:
        """All dead writers that left a file.  Within opening(), so that none of them is just about to take its lock."""
        start = f"{self._path.name}-writer-"
        names = {file.name.removeprefix(start).removesuffix(".jsonl") for file in self._path.parent.glob(f"{start}*")}
        return sorted(writer for writer in names if self.dead(writer))

    def journal(self, writer: str) -> Path:
        """Where a writer keeps the records that it could not write."""
        return self._path.with_name(f"{self._path.name}-writer-{writer}.jsonl")

    def forget(self, writer: str) -> None:
        """Remove a writer's lock file."""
        self._lock_file(writer).unlink(missing_ok=True)

    def _lock_file(self, writer: str) -> Path:
        return self._path.with_name(f"{self._path.name}-writer-{writer}")
