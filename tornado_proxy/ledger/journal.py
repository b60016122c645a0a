"""Records that could not be written to the ledger, as JSON lines in a file beside it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from tornado_proxy.ledger.rows import RECORD_COLUMNS, Row

_log = logging.getLogger(__name__)

#: Bytes of the journal; past this, records are kept in memory only.  A record has some 1,500.
_MOST_BYTES = 256 * 1024 * 1024


class Journal:
    """An append-only file of records that wait.  Holds each record once, however often it is tried."""

    def __init__(self, path: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._kept: set[object] = set()

    def keep(self, records: list[Row]) -> None:
        """Append the records that are not there yet; a fault is logged, for there is nowhere else to go."""
        fresh = [record for record in records if record["request_id"] not in self._kept]
        if not fresh:
            return
        # Begins with a line end: the line before may have been cut short by a full disk.
        lines = "".join("\n" + json.dumps(record) for record in fresh) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                if file.tell() + len(lines) > self._most_bytes:
                    _log.error("the ledger's journal is full: records wait in memory only")
                    return
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _log.error("the ledger's journal cannot be written either", extra={"reason": str(error)})
            return
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
                if line == b"\n":
                    continue
                try:
                    yield {**dict.fromkeys(RECORD_COLUMNS), **json.loads(line)}
                except ValueError:
                    _log.warning("a line of the ledger's journal is cut short")

    def clear(self) -> None:
        """Forget what has been written to the ledger."""
        if self._kept:
            self._kept.clear()
            self._path.unlink(missing_ok=True)
