"""Intents and records as lines of a file: one write to the page cache each, which outlives the process.

    [...]   an intent: the values of its columns (ledger/rows.py, IntentRow)
    {...}   a record: its columns that are not NULL, by name (RecordRow); the last one of a request counts

A request so costs no turn of the writer thread before it is sent, and none before the last byte of its response leaves.
The file is read only if the process has died: its records are stored, and its intents without a record are lost
requests.  A full file is followed by the next one; its open intents are written to the database, and the file is
removed when all of its records are there.

    OpenIntents   the requests of this process that are in its log and not in the database yet
    IntentLog     the files
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.ledger.columns import IntentRow, RecordRow
from tornado_proxy.ledger.file_modes import create_private
from tornado_proxy.ledger.rows import (
    decode_row,
    encode_row,
    format_time,
    make_intent_row,
    make_record_row,
    make_storable_row,
)
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

_log = logging.getLogger(__name__)

#: Bytes of one file, some 2,500 requests: few enough to be read and stored within a second at a start.
_MAX_FILE_BYTES = 4 * 1024 * 1024

#: Intents whose rows are kept for their records: more than are open beside each other without long streams.
_MAX_KEPT_ROWS = 256

#: The first byte of a record's line; an intent's line starts with a bracket.
_RECORD_START = b"{"


@dataclass(frozen=True, slots=True)
class RotatedLog:
    """A full log file, and the intents that must be in the database before it is removed."""

    file: Path
    open_intents: list[IntentRow]


class OpenIntents:
    """Used by the event loop's thread.  open(), begin(), rotate() and check() may raise OSError."""

    def __init__(self, locks: ProcessLocks) -> None:
        self._log = IntentLog(lambda number: locks.intent_log_path(locks.writer_id, number))
        self._open: dict[str, RequestIntent] = {}
        #: The rows of the last intents, the oldest first; those of others are made again, because many streams are open
        #: for minutes.
        self._rows: dict[str, IntentRow] = {}
        #: Records in the log whose request has not ended for the client, and their rows.
        self._logged: dict[str, tuple[RequestRecord, RecordRow]] = {}
        self._record_fault = ""

    def open(self) -> None:
        """Create the log."""
        self._log.open()

    def begin(self, intent: RequestIntent) -> None:
        """Write an intent; it is durable when this returns."""
        row = make_intent_row(intent)
        self._log.append(encode_row(row))
        self._open[intent.request_id] = intent
        self._rows[intent.request_id] = row
        if len(self._rows) > _MAX_KEPT_ROWS:
            del self._rows[next(iter(self._rows))]

    def log_record(self, record: RequestRecord) -> RecordRow:
        """Write a record and return its row.  It survives the death of the process when this returns.

        A record that is in the log already is written again only if it ended otherwise.  A fault is logged, not raised:
        the provider charges for the request, and its record goes to the database as well.
        """
        request_id = record.intent.request_id
        logged = self._logged.get(request_id)
        if logged is not None and logged[0] is record:
            return logged[1]
        if logged is not None and (logged[0].outcome, logged[0].faults) == (record.outcome, record.faults):
            # Only its end is later.  A row costs more than all the rest of this method.
            return replace(logged[1], ended_at=format_time(record.ended_at))
        # A record with masked text has an intent of its own.
        is_begun = self._open.get(request_id) is record.intent
        row = make_record_row(record, self._rows.get(request_id) if is_begun else None)
        self._logged[request_id] = record, row
        try:
            self._log.append(encode_row(row))
        except OSError as error:
            self._set_record_fault(str(error))
        else:
            self._record_fault = ""
        return row

    def end(self, request_id: str) -> None:
        """Drop a request whose record is queued: the writer stores it before any operation queued later."""
        self._open.pop(request_id, None)
        self._rows.pop(request_id, None)
        self._logged.pop(request_id, None)

    @property
    def is_full(self) -> bool:
        """True if rotate() is due."""
        return self._log.size_bytes >= _MAX_FILE_BYTES

    def rotate(self) -> RotatedLog:
        """Begin the next log file and return the full one."""
        file = self._log.rotate()
        # These records are queued later, perhaps after the full file is removed.
        for _, row in self._logged.values():
            self._log.append(encode_row(row))
        return RotatedLog(file, [make_storable_row(make_intent_row(intent)) for intent in self._open.values()])

    def check(self) -> None:
        """Raise OSError if an intent could not be written."""
        self._log.check()

    def close(self) -> bool:
        """Close the log; return True if it holds requests without a queued record, which the next start reads."""
        self._log.close()
        return bool(self._open or self._logged)

    def _set_record_fault(self, reason: str) -> None:
        if reason != self._record_fault:
            _log.error("the ledger's intent log cannot be written", extra={"reason": reason})
        self._record_fault = reason


class IntentLog:
    """The intent log files of one process, used by the event loop's thread.

    Args:
        path_of: returns the path of the file with a number; the first one is 0.
    """

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        self._path_of = path_of
        self._number = 0
        self._file = -1
        #: Bytes of the current file.
        self.size_bytes = 0

    def open(self) -> None:
        """Create the first file; raise OSError if that fails."""
        self._file = _create(self._path_of(self._number))

    def append(self, row: bytes) -> None:
        """Write the text of an intent, or of a record.

        When this returns, it survives the death of the process, but not loss of power.

        Raises:
            OSError: it could not be written, or not all of it.
        """
        # A line end first, because a full disk may have truncated the previous line.
        # os.write() and not a file object, whose buffer would be lost with the process.
        written = os.write(self._file, b"\n" + row)
        self.size_bytes += written
        if written <= len(row):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def check(self) -> None:
        """Raise OSError if an intent could not be written."""
        self.append(b"")

    def rotate(self) -> Path:
        """Begin the next file and return the path of the previous one.

        Raises:
            OSError: the next file cannot be created; the current one stays in use.
        """
        next_file = _create(self._path_of(self._number + 1))
        os.close(self._file)
        self._file, self.size_bytes = next_file, 0
        self._number += 1
        return self._path_of(self._number - 1)

    def close(self) -> None:
        """Close the file without removing it."""
        os.close(self._file)


def read_intents(path: Path) -> Iterator[IntentRow]:
    """Yield the intents of a dead process's file.

    A truncated line is skipped: append() raised for it, so its request was not sent.
    """
    with path.open("rb") as file:
        for line in file:
            if line == b"\n" or line.startswith(_RECORD_START):
                continue
            try:
                yield decode_row(line, IntentRow)
            except ValueError:
                _log.warning("truncated line in the ledger's intent log")


def read_records(path: Path) -> list[RecordRow]:
    """Return the records of a dead process's file, one for each request: the last one written.

    A truncated line is skipped.  Its disk was full: the record went to the database or the journal, or its request is
    unsettled.
    """
    records: dict[str, RecordRow] = {}
    with path.open("rb") as file:
        for line in file:
            if not line.startswith(_RECORD_START):
                continue
            try:
                record = decode_row(line, RecordRow)
            except ValueError:
                _log.warning("truncated line in the ledger's intent log")
            else:
                records[record.request_id] = record
    return list(records.values())


def _create(path: Path) -> int:
    # O_EXCL: a file with this writer's id and number that exists already would be another process's.
    return create_private(path, os.O_WRONLY | os.O_EXCL | os.O_APPEND)
