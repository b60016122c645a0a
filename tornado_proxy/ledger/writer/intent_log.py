"""Intents and records as lines of a file: one write to the page cache each, which outlives the process.

    [...]   an intent: the values of its columns
    {...}   a record: its members by name; the last one of a request counts

A request so costs no turn of the writer thread before it is sent, and none before the last byte of its response leaves.
The file is read only if the process has died: its records are stored, and its intents without a record are lost
requests.  A full file is followed by the next one; its open intents are written to the database, and the file is
removed when all of its records are there.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tornado_proxy.ledger.file_modes import create_private
from tornado_proxy.ledger.rows import INTENT_COLUMNS, RECORD_COLUMNS, Row

_log = logging.getLogger(__name__)

#: Bytes of one file, some 2,500 requests: few enough to be read and stored within a second at a start.
_MAX_FILE_BYTES = 4 * 1024 * 1024

#: The first byte of a record's line; an intent's line starts with a bracket.
_RECORD_START = b"{"

_encode = msgspec.json.Encoder().encode


class IntentLog:
    """The intent log files of one process, used by the event loop's thread.

    Args:
        path_of: returns the path of the file with a number; the first one is 0.
    """

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        self._path_of = path_of
        self._number = 0
        self._bytes = 0
        self._file = -1

    @property
    def is_full(self) -> bool:
        """True if rotate() is due."""
        return self._bytes >= _MAX_FILE_BYTES

    def open(self) -> None:
        """Create the first file; raise OSError if that fails."""
        self._file = _create(self._path_of(self._number))

    def append(self, intent: Row) -> None:
        """Write an intent.  When this returns, it survives the death of the process, but not loss of power.

        Raises:
            OSError: it could not be written, or not all of it.
        """
        self._write(b"\n" + _encode_line(list(intent.values())))

    def append_record(self, record: Row) -> None:
        """Write a record, as append() writes an intent."""
        self._write(b"\n" + _encode_line(record))

    def check(self) -> None:
        """Raise OSError if an intent could not be written."""
        self._write(b"\n")

    def rotate(self) -> Path:
        """Begin the next file and return the path of the previous one.

        Raises:
            OSError: the next file cannot be created; the current one stays in use.
        """
        next_file = _create(self._path_of(self._number + 1))
        os.close(self._file)
        self._file, self._bytes = next_file, 0
        self._number += 1
        return self._path_of(self._number - 1)

    def close(self) -> None:
        """Close the file without removing it."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        # `data` begins with a line end, because a full disk may have truncated the previous line.
        # os.write() and not a file object, whose buffer would be lost with the process.
        written = os.write(self._file, data)
        self._bytes += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_intents(path: Path) -> Iterator[Row]:
    """Yield the intents of a dead process's file.

    A truncated line is skipped: append() raised for it, so its request was not sent.
    """
    with path.open("rb") as file:
        for line in file:
            if line == b"\n" or line.startswith(_RECORD_START):
                continue
            try:
                yield dict(zip(INTENT_COLUMNS, json.loads(line), strict=True))
            except ValueError:
                _log.warning("truncated line in the ledger's intent log")


def read_records(path: Path) -> list[Row]:
    """Return the records of a dead process's file, one for each request: the last one written.

    A truncated line is skipped.  Its disk was full: the record went to the database or the journal, or its request is
    unsettled.
    """
    records: dict[str, Row] = {}
    with path.open("rb") as file:
        for line in file:
            if not line.startswith(_RECORD_START):
                continue
            try:
                record = {**dict.fromkeys(RECORD_COLUMNS), **json.loads(line)}
            except ValueError:
                _log.warning("truncated line in the ledger's intent log")
            else:
                records[str(record["request_id"])] = record
    return list(records.values())


def _encode_line(values: Sequence[object] | Row) -> bytes:
    try:
        return _encode(values)
    except UnicodeEncodeError:
        # msgspec refuses half of a surrogate pair, which JSON of a client may hold; json escapes it.
        return json.dumps(values).encode()


def _create(path: Path) -> int:
    # O_EXCL: a file with this writer's id and number that exists already would be another process's.
    return create_private(path, os.O_WRONLY | os.O_EXCL | os.O_APPEND)
