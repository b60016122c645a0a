"""The open intents of this process: those in its intent log that have no record yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.ledger.rows import Row, make_intent_row, make_storable_row
from tornado_proxy.ledger.writer.intent_log import IntentLog
from tornado_proxy.ledger.writer.process_locks import ProcessLocks


@dataclass(frozen=True, slots=True)
class RotatedLog:
    """A full log file, and the intents that must be in the database before it is removed."""

    file: Path
    open_intents: list[Row]


class OpenIntents:
    """Used by the event loop's thread.  Every method but end() may raise OSError."""

    def __init__(self, locks: ProcessLocks) -> None:
        self._log = IntentLog(lambda number: locks.intent_log_path(locks.writer_id, number))
        self._open: dict[str, RequestIntent] = {}

    def open(self) -> None:
        """Create the log."""
        self._log.open()

    def begin(self, intent: RequestIntent) -> None:
        """Write an intent; it is durable when this returns."""
        self._log.append(make_intent_row(intent))
        self._open[intent.request_id] = intent

    def end(self, request_id: str) -> None:
        """Drop an intent whose record is queued: the writer stores it before any operation queued later."""
        self._open.pop(request_id, None)

    def rotate_if_full(self) -> RotatedLog | None:
        """Begin the next log file and return the full one; return None if it is not full."""
        if not self._log.is_full:
            return None
        return RotatedLog(
            self._log.rotate(), [make_storable_row(make_intent_row(intent)) for intent in self._open.values()]
        )

    def check(self) -> None:
        """Raise OSError if an intent could not be written."""
        self._log.check()

    def close(self) -> bool:
        """Close the log; return True if it holds open intents, which the next start reads."""
        self._log.close()
        return bool(self._open)
