"""Records that could not be written to the ledger, as JSON lines in a file beside it.

    | records | zeros: space that is kept free for the next ones |

The space is taken while there is some: what fills a disk must not keep the records of requests in flight from it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from tornado_proxy.ledger.rows import RECORD_COLUMNS, Row

_log = logging.getLogger(__name__)

#: Bytes of the journal; past this, records are kept in memory only.  A record has some 1,500.
_MOST_BYTES = 256 * 1024 * 1024

#: Bytes that are taken in advance, room for some 2,800 records.
_RESERVED_BYTES = 4 * 1024 * 1024


class Journal:
    """The file of one process.  Holds each record once, however often it is tried."""

    def __init__(self, path: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._reserved = 0
        self._end: int | None = None
        self._kept: set[object] = set()

    def reserve(self) -> None:
        """Take space for the records to come.  Without it they take their chance."""
        try:
            with _opened(self._path) as file:
                os.posix_fallocate(file, 0, _RESERVED_BYTES)
        except OSError as error:
            _log.warning("no disk space reserved for the ledger's journal", extra={"reason": str(error)})
            return
        self._reserved = _RESERVED_BYTES

    def append(self, records: list[Row]) -> None:
        """Append the records that are not there yet; a fault is logged, for there is nowhere else to go."""
        fresh = [record for record in records if record["request_id"] not in self._kept]
        if not fresh:
            return
        lines = "".join(json.dumps(record) + "\n" for record in fresh).encode()
        try:
            end = self._find_end()
            if end + len(lines) > self._most_bytes:
                _log.error("the ledger's journal is full; records wait in memory only")
                return
            self._write(lines, end)
        except OSError as error:
            _log.error("the ledger's journal cannot be written", extra={"reason": str(error)})
            return
        self._end = end + len(lines)
        self._kept.update(record["request_id"] for record in fresh)

    def holds(self, record: Row) -> bool:
        """Whether a record is in the file."""
        return record["request_id"] in self._kept

    def read(self) -> Iterator[Row]:
        """What the file holds; a line that was cut short is passed over, for its record was never kept."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                text = line.strip(b"\0\n")
                if not text:
                    continue
                try:
                    yield {**dict.fromkeys(RECORD_COLUMNS), **json.loads(text)}
                except ValueError:
                    _log.warning("truncated line in the ledger's journal")

    def clear(self) -> None:
        """Forget what has been written to the ledger."""
        if not self._kept:
            return
        self._kept.clear()
        # What cannot be forgotten is written once more at worst, and passed over as a second record.
        with contextlib.suppress(OSError):
            if self._reserved:
                self._write(bytes(min(self._find_end(), self._reserved)), 0)
                os.truncate(self._path, self._reserved)
            else:
                self._path.unlink(missing_ok=True)
        self._end = 0

    def _find_end(self) -> int:
        """Where the next line goes: where the records of this process end, or of the one that kept them here before."""
        if self._end is None:
            found = self._path.read_bytes().rstrip(b"\0") if self._path.exists() else b""
            # A line that was cut short is ended.
            self._end = len(found) + (bool(found) and not found.endswith(b"\n"))
            if self._end > len(found):
                self._write(b"\n", len(found))
        return self._end

    def _write(self, data: bytes, at: int) -> None:
        with _opened(self._path) as file:
            while data:
                written = os.pwrite(file, data, at)
                data, at = data[written:], at + written
            os.fsync(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield file
    finally:
        os.close(file)
