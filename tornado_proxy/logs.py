"""Logging: JSON lines on standard error, written by a thread so that a full pipe never holds up the event loop."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
from datetime import UTC, datetime

#: Members of every LogRecord; what else stands on a record was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Lines that wait for the writer; when a reader of the pipe hangs, later lines are dropped rather than kept for ever.
_MOST_WAITING = 100_000


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC), level, logger, message, then what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Queue(logging.handlers.QueueHandler):
    """Hands records over as they are; a full queue drops the line."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def start(level: str) -> logging.handlers.QueueListener:
    """Send all logging to standard error through a thread.  Call stop() on what is returned, last of all."""
    stream = logging.StreamHandler()
    stream.setFormatter(JsonFormatter())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
    root = logging.getLogger()
    root.handlers[:] = [_Queue(waiting)]
    root.setLevel(level)
    listener = logging.handlers.QueueListener(waiting, stream)
    listener.start()
    return listener
