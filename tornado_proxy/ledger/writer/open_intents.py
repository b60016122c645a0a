"""The requests of this process that are in its intent log and not in the database yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.ledger.rows import Row, format_time, make_intent_row, make_record_row, make_storable_row
from tornado_proxy.ledger.writer.intent_log import IntentLog
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RotatedLog:
    """A full log file, and the intents that must be in the database before it is removed."""

    file: Path
    open_intents: list[Row]


class OpenIntents:
    """Used by the event loop's thread.  open(), begin(), rotate_if_full() and check() may raise OSError."""

    def __init__(self, locks: ProcessLocks) -> None:
        self._log = IntentLog(lambda number: locks.intent_log_path(locks.writer_id, number))
        self._open: dict[str, RequestIntent] = {}
        #: Records in the log whose request has not ended for the client, and their rows.
        self._logged: dict[str, tuple[RequestRecord, Row]] = {}
        self._record_fault = ""

    def open(self) -> None:
        """Create the log."""
        self._log.open()

    def begin(self, intent: RequestIntent) -> None:
        """Write an intent; it is durable when this returns."""
        self._log.append(make_intent_row(intent))
        self._open[intent.request_id] = intent

    def log_record(self, record: RequestRecord) -> Row:
        """Write a record and return its row.  It survives the death of the process when this returns.

        A record that is in the log already is written again only if it ended otherwise.  A fault is logged, not raised:
        the provider charges for the request, and its record goes to the database as well.
        """
        request_id = record.intent.request_id
        logged = self._logged.get(request_id)
        if logged is not None and (logged[0].outcome, logged[0].faults) == (record.outcome, record.faults):
            # Only its end is later.  A row costs more than all the rest of this method.
            return {**logged[1], "ended_at": format_time(record.ended_at)}
        row = make_record_row(record)
        self._logged[request_id] = record, row
        try:
            self._log.append_record(row)
        except OSError as error:
            self._set_record_fault(str(error))
        else:
            self._set_record_fault("")
        return row

    def end(self, request_id: str) -> None:
        """Drop a request whose record is queued: the writer stores it before any operation queued later."""
        self._open.pop(request_id, None)
        self._logged.pop(request_id, None)

    def rotate_if_full(self) -> RotatedLog | None:
        """Begin the next log file and return the full one; return None if it is not full."""
        if not self._log.is_full:
            return None
        file = self._log.rotate()
        # These records are queued later, perhaps after the full file is removed.
        for _, row in self._logged.values():
            self._log.append_record(row)
        return RotatedLog(file, [make_storable_row(make_intent_row(intent)) for intent in self._open.values()])

    def check(self) -> None:
        """Raise OSError if an intent could not be written."""
        self._log.check()

    def close(self) -> bool:
        """Close the log; return True if it holds requests without a queued record, which the next start reads."""
        self._log.close()
        return bool(self._open or self._logged)

    def _set_record_fault(self, reason: str) -> None:
        if reason and reason != self._record_fault:
            _log.error("the ledger's intent log cannot be written", extra={"reason": reason})
        self._record_fault = reason
