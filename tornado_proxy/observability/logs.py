"""Logging: JSON lines on standard error, written by a thread so that a full pipe never holds up the event loop.

    log.info ──> JSON line ──> waiting ──> thread, every 20 ms at most: all lines that wait, in one write

The line is made where it is logged.  What is left to the thread is a single system call now and then, because each
hand-over of the interpreter's lock costs as much as making the line (docs/performance.md).
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

#: Members of every LogRecord; what else stands on a record was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Lines that wait for the thread; when the reader of the pipe hangs, later lines are dropped rather than kept for ever.
_MOST_WAITING = 100_000

#: Seconds that a line may wait for others before all are written.
_GATHER_S = 0.02

_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC), level, logger, message, then what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            given["exception"] = self.formatException(record.exc_info)
        return _line(record.created, record.levelname.lower(), record.name, record.getMessage(), given)


class LineWriter(logging.Handler):
    """Makes lines and lets a thread write them to the file descriptor `fd`.  stop() writes what waits, last of all."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._fd = fd
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Make a line and put it on the way."""
        self.put(self.format(record))

    def put(self, line: str) -> None:
        """Put a line on the way that is made already; drop and count it when far too many wait."""
        if len(self._waiting) >= _MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._some.set()

    def stop(self) -> None:
        """Write what waits and end the thread."""
        self._stopping = True
        self._some.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._some.wait()
            if not self._stopping:
                time.sleep(_GATHER_S)
            self._some.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
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
            return  # nobody reads any more; there is nowhere to say so


class FrequentLog:
    """A logger for a line that every request writes: it makes no LogRecord, which takes longer than the line.

    Levels and names are logging's own; so is everything else as long as start() has not been called.
    """

    _writer: ClassVar[LineWriter | None] = None

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def info(self, message: str, given: Mapping[str, object]) -> None:
        """Write a line with the members `given`."""
        if self._writer is None:
            self._log.info(message, extra=given)
        elif self._log.isEnabledFor(logging.INFO):
            self._writer.put(_line(time.time(), "info", self._log.name, message, given))


def _line(at: float, level: str, logger: str, message: str, given: Mapping[str, object]) -> str:
    """`at` is in seconds since 1970."""
    line = {"time": _rfc3339(at), "level": level, "logger": logger, "message": message, **given}
    try:
        return _encode(line).decode()
    except (TypeError, ValueError, OverflowError):
        # Half a surrogate pair in a caller's text, an integer past 64 bits: json has words for all of them.
        return json.dumps(line, default=str, skipkeys=True)


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def start(level: str) -> LineWriter:
    """Send all logging to standard error.  Call stop() on what is returned, last of all."""
    # What no line shows is not looked up (Python's logging documentation, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # the documented switch has no public name
    writer = FrequentLog._writer = LineWriter(sys.stderr.fileno())
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(level)
    return writer
