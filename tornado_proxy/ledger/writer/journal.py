"""Records that could not be written to the database, as JSON lines in a file beside it.

    | records | zeros: space reserved for the next ones |

The space is reserved while the disk has some, so that a full disk does not cost the records of requests in flight.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from tornado_proxy.ledger.columns import RecordRow
from tornado_proxy.ledger.file_modes import create_private
from tornado_proxy.ledger.rows import decode_row, encode_row

_log = logging.getLogger(__name__)

#: Bytes of the journal; more records are held in memory only.  A record has some 1,500 bytes.
_MAX_BYTES = 256 * 1024 * 1024

#: Bytes reserved at the start, enough for some 2,800 records.
_RESERVED_BYTES = 4 * 1024 * 1024


class Journal:
    """The journal of one process.  It holds each record once, however often it is appended."""

    def __init__(self, path: Path, *, max_bytes: int = _MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._reserved_bytes = 0
        self._end: int | None = None
        self._request_ids: set[str] = set()

    def reserve(self) -> None:
        """Reserve disk space for records; log a warning if there is none."""
        try:
            with _opened(self._path) as file:
                os.posix_fallocate(file, 0, _RESERVED_BYTES)
        except OSError as error:
            _log.warning("no disk space reserved for the ledger's journal", extra={"reason": str(error)})
            return
        self._reserved_bytes = _RESERVED_BYTES

    def append(self, records: list[RecordRow]) -> None:
        """Append the records that the file does not hold yet, and flush them to the disk.

        A fault is logged, not raised: the caller has no other place for the records than memory.
        """
        new = [record for record in records if record.request_id not in self._request_ids]
        if not new:
            return
        lines = b"".join([encode_row(record) + b"\n" for record in new])
        try:
            end = self._find_end()
            if end + len(lines) > self._max_bytes:
                _log.error("the ledger's journal is full; records wait in memory only")
                return
            self._write(lines, end)
        except OSError as error:
            _log.error("the ledger's journal cannot be written", extra={"reason": str(error)})
            return
        self._end = end + len(lines)
        self._request_ids.update(record.request_id for record in new)

    def holds(self, record: RecordRow) -> bool:
        """Return True if this process has appended the record."""
        return record.request_id in self._request_ids

    def read(self) -> Iterator[RecordRow]:
        """Yield the records of the file; skip a truncated line, whose append failed.

        Members that an earlier version of the program did not write are None.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                text = line.strip(b"\0\n")
                if not text:
                    continue
                try:
                    yield decode_row(text, RecordRow)
                except ValueError:
                    _log.warning("truncated line in the ledger's journal")

    def clear(self) -> None:
        """Remove all records.  Called when the database has them."""
        if not self._request_ids:
            return
        self._request_ids.clear()
        # If this fails, the next start writes the records once more, and the database ignores a second record.
        with contextlib.suppress(OSError):
            if self._reserved_bytes:
                self._write(bytes(min(self._find_end(), self._reserved_bytes)), 0)
                os.truncate(self._path, self._reserved_bytes)
            else:
                self._path.unlink(missing_ok=True)
        self._end = 0

    def _find_end(self) -> int:
        """Return the offset of the next line: after the records of this process and of an earlier Journal object."""
        if self._end is None:
            records = self._path.read_bytes().rstrip(b"\0") if self._path.exists() else b""
            # End a truncated line, so that the next record has a line of its own.
            self._end = len(records) + (bool(records) and not records.endswith(b"\n"))
            if self._end > len(records):
                self._write(b"\n", len(records))
        return self._end

    def _write(self, data: bytes, offset: int) -> None:
        with _opened(self._path) as file:
            while data:
                written = os.pwrite(file, data, offset)
                data, offset = data[written:], offset + written
            # The journal is the only copy while the database fails, so it must survive loss of power.
            os.fsync(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = create_private(path)
    try:
        yield file
    finally:
        os.close(file)
