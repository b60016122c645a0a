"""Logging: JSON lines on standard error, written by a thread so that a full pipe never blocks the event loop.

    log.info ──> JSON line ──> queue ──> thread, at most every 20 ms: all queued lines in one write

The calling thread encodes the line.  The writer thread only makes system calls, because each switch of the interpreter
lock between two threads costs as much as encoding a line (docs/performance.md).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from tornado_proxy.wire.redaction import Redaction
from tornado_proxy.wire.visible_text import escape_json_controls

#: Attributes of every LogRecord; all others were given as `extra`.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Lines in the queue.  If the reader of the pipe hangs, later lines are dropped: memory must stay bounded.
_MAX_QUEUED_LINES = 100_000

#: Seconds that the writer waits for more lines before it writes them all.
_BATCH_DELAY_S = 0.02

#: Masks the secrets of the current configuration in every line.
_redaction = Redaction(())

_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (RFC 3339, UTC), level, logger, message and the `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD_ATTRIBUTES}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _format_line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)


class LineWriter(logging.Handler):
    """Writes log lines to the file descriptor `fd` from a thread.

    Call stop() last: it writes the queued lines and ends the thread.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._fd = fd
        self._queue: deque[str] = deque()
        self._dropped = 0
        self._has_lines = threading.Event()
        self._stopping = False
        # A daemon: a pipe that hangs must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format `record` and queue its line."""
        self.put(self.format(record))

    def put(self, line: str) -> None:
        """Queue a formatted line; drop and count it if the queue is full."""
        if len(self._queue) >= _MAX_QUEUED_LINES:
            self._dropped += 1
            return
        self._queue.append(line)
        # is_set() takes no lock; set() does, and most lines find the event set.
        if not self._has_lines.is_set():
            self._has_lines.set()

    def stop(self) -> None:
        """Write the queued lines and end the thread."""
        self._stopping = True
        self._has_lines.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._has_lines.wait()
            if not self._stopping:
                time.sleep(_BATCH_DELAY_S)
            # Clear before the write: a line that is queued during the write sets the event again.
            self._has_lines.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._queue.popleft() for _ in range(len(self._queue))]
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lines.append(
                _encode({"level": "warning", "logger": __name__, "message": f"{dropped} lines dropped"}).decode()
            )
        data = memoryview("".join(line + "\n" for line in lines).encode("utf-8", "replace"))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            return  # the reader closed the pipe; there is no other place to report it


class FrequentLog:
    """A logger for the lines that every request writes.

    It makes no LogRecord, which takes longer than encoding the line.  Levels and logger names are those of `logging`;
    until start() is called, so is everything else.
    """

    _writer: ClassVar[LineWriter | None] = None

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def info(self, message: str, fields: Mapping[str, object]) -> None:
        """Write a line with `fields` at level INFO."""
        if self._writer is None:
            self._log.info(message, extra=fields)
        elif self._log.isEnabledFor(logging.INFO):
            self._writer.put(_format_line(time.time(), "info", self._log.name, message, fields))


def _format_line(at: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> str:
    """Return a line; `at` is in seconds since 1970."""
    line = {"time": _format_time(at), "level": level, "logger": logger, "message": message, **fields}
    try:
        text = _encode(line).decode()
    except (TypeError, ValueError, OverflowError):
        # msgspec rejects lone surrogates in a caller's text and integers above 64 bits; json writes both.
        text = json.dumps(line, default=str, skipkeys=True)
    text = _redaction.line(text)
    return text if text.isascii() and "\x7f" not in text else escape_json_controls(text)


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def set_redaction(redaction: Redaction) -> None:
    """Mask the secrets of `redaction` in every line from now on."""
    global _redaction  # logging is the process's own: every logger writes through this module
    _redaction = redaction


def start(level: str) -> LineWriter:
    """Send all logging to standard error and return the writer; the caller stops it, last of all."""
    # No line shows these, so do not look them up (Python documentation, "Logging HOWTO", Optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # the documented switch for call-site lookups has no public name
    writer = FrequentLog._writer = LineWriter(sys.stderr.fileno())
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(level)
    return writer
