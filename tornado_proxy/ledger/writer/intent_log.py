"""Intents as lines of a file: one write of some hundred bytes to the page cache, which outlives the process.

A request costs no turn of the writer thread before it is sent.  What the file holds is asked for only when the process
has died: intents that have no record are lost ones then.  A file that has grown is followed by the next; those of its
intents that are still under way go into the database, and the file away.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from tornado_proxy.ledger.rows import INTENT_COLUMNS, Row

_log = logging.getLogger(__name__)

#: Bytes of one file, some 12,000 intents: few enough to be read within a second at a start.
_TURN_BYTES = 4 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


class IntentLog:
    """The files of one process.  `path_of` names the file of a number.  Used by the event loop's thread alone."""

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        self._path_of = path_of
        self._number = 0
        self._bytes = 0
        self._file = -1

    @property
    def full(self) -> bool:
        """Whether turn() is due."""
        return self._bytes >= _TURN_BYTES

    def open(self) -> None:
        """Make the first file.

        Raises:
            OSError: it cannot be made.
        """
        self._file = _create(self._path_of(self._number))

    def append(self, intent: Row) -> None:
        """Write an intent; it survives the death of the process when this returns.

        Raises:
            OSError: it could not be written, or not all of it.
        """
        self._write(b"\n" + _line(intent))

    def check(self) -> None:
        """Find out whether an intent could be written.  Raises OSError if not."""
        self._write(b"\n")

    def turn(self) -> Path:
        """Begin the next file; gives the one before.

        Raises:
            OSError: the next one cannot be made; nothing has changed.
        """
        following = _create(self._path_of(self._number + 1))
        os.close(self._file)
        self._file, self._bytes = following, 0
        self._number += 1
        return self._path_of(self._number - 1)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        # Begins with a line end: the line before may have been cut short by a full disk.
        written = os.write(self._file, data)
        self._bytes += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_intents(path: Path) -> Iterator[Row]:
    """The intents of a dead process's file.  A line that was cut short was never promised to anyone."""
    with path.open("rb") as file:
        for line in file:
            if line == b"\n":
                continue
            try:
                yield dict(zip(INTENT_COLUMNS, json.loads(line), strict=True))
            except ValueError:
                _log.warning("truncated line in the ledger's intent log")


def _line(intent: Row) -> bytes:
    values = list(intent.values())
    try:
        return _encode(values)
    except UnicodeEncodeError:
        return json.dumps(values).encode()  # half of a surrogate pair in a name


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
