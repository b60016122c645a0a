"""The intents of one process in their log, and which of them are under way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.ledger.rows import Row, intent_row, plain_row
from tornado_proxy.ledger.writer.intent_log import IntentLog
from tornado_proxy.ledger.writer.process_locks import ProcessLocks


@dataclass(frozen=True, slots=True)
class RotatedLog:
    """A log file that is full, and the intents that must be in the database before it may go."""

    file: Path
    under_way: list[Row]


class OpenIntents:
    """Used by the event loop's thread.  Methods may raise OSError."""

    def __init__(self, files: ProcessLocks) -> None:
        self._log = IntentLog(lambda number: files.intents(files.own, number))
        self._under_way: dict[str, RequestIntent] = {}

    def open(self) -> None:
        """Make the log."""
        self._log.open()

    def begin(self, intent: RequestIntent) -> None:
        """Write an intent; durable when this returns."""
        self._log.append(intent_row(intent))
        self._under_way[intent.request_id] = intent

    def end(self, request_id: str) -> None:
        """Its record is with the writer, ahead of all that comes after."""
        self._under_way.pop(request_id, None)

    def turn(self) -> RotatedLog | None:
        """Begin a new file when it is time."""
        if not self._log.full:
            return None
        return RotatedLog(self._log.turn(), [plain_row(intent_row(one)) for one in self._under_way.values()])

    def check(self) -> None:
        """Find out whether an intent could be written."""
        self._log.check()

    def close(self) -> bool:
        """Close the log; whether something in it waits for the next start."""
        self._log.close()
        return bool(self._under_way)
