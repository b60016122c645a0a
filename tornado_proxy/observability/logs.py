"""Logging: JSON lines on standard error, and in a file if the configuration names one.

    log.info ──> JSON line ──> a queue and a thread for standard error, and for the file: at most every 20 ms all
                               queued lines in one write

The calling thread encodes the line, once for both.  The threads write, so that a full pipe or a slow disk never blocks
the event loop; they only make system calls, because each switch of the interpreter lock between two threads costs as
much as encoding a line (docs/performance.md).
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
from pathlib import Path
from typing import ClassVar

import msgspec

from tornado_proxy.domain.text import format_time
from tornado_proxy.observability import metrics
from tornado_proxy.wire.redaction import Redaction
from tornado_proxy.wire.visible_text import escape_json_controls

#: Attributes of every LogRecord; all others were given as `extra`.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Lines in the queue.  If the reader of the pipe hangs, later lines are dropped: memory must stay bounded.
_MAX_QUEUED_LINES = 100_000

#: Seconds that the writer waits for more lines before it writes them all.
_BATCH_DELAY_S = 0.02

#: The operator's account alone reads the log: it has the names of participants.
_FILE_MODE = 0o600

#: Masks the secrets of the current configuration in every line.
_redaction = Redaction(())

_encode = msgspec.json.Encoder(enc_hook=str).encode

_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (RFC 3339, UTC), level, logger, message and the `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line end."""
        fields = {
            "time": format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD_ATTRIBUTES},
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _make_safe(_encode_fields(fields))


class LineOutput:
    """Writes lines to the file descriptor `fd` from a thread of its own.

    Call stop() last: it writes the queued lines and ends the thread.
    """

    #: The value of the label `output` of the metric that counts lost lines.
    name = "stderr"

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: deque[str] = deque()
        self._dropped = 0
        self._has_lines = threading.Event()
        #: True from a line on until the thread has found no more.  The event's own methods are calls with a lock.
        self._is_awake = False
        self._stopping = False
        # A daemon: a pipe that hangs must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue a line without its end; drop and count it if the queue is full."""
        if len(self._queue) >= _MAX_QUEUED_LINES:
            self._dropped += 1
            return
        self._queue.append(line)
        if not self._is_awake:
            self._is_awake = True
            self._has_lines.set()

    def reopen(self) -> None:
        """Do nothing: a file descriptor that others opened has no path."""

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
            # While lines come, the event stays set, so that none of them has to wake this thread.
            if not (self._queue or self._dropped):
                # Clear before the last write: a line that is queued during it sets the event again.
                self._has_lines.clear()
                self._is_awake = False
            self._write_queued()
        self._write_queued()

    def _write_queued(self) -> None:
        lines = [self._queue.popleft() for _ in range(len(self._queue))]
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            metrics.child(metrics.LOG_LINES_LOST, self.name).inc(dropped)
            lines.append(json.dumps({"level": "warning", "logger": __name__, "message": f"{dropped} lines dropped"}))
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        """Write lines.  Runs in the thread."""
        try:
            self._write_bytes("\n".join([*lines, ""]).encode("utf-8", "replace"))
        except OSError:
            # The reader closed the pipe; a line about it would get lost too.
            metrics.child(metrics.LOG_LINES_LOST, self.name).inc(len(lines))

    def _write_bytes(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]


class FileOutput(LineOutput):
    """Appends lines to a file, which logrotate and the like may rename: reopen() goes on in a new file."""

    name = "file"

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be opened.
        """
        self._path = path
        self._reopening = False
        self._failing = False
        self._cut = False
        super().__init__(_open(path))

    def reopen(self) -> None:
        """Open the file's path again before the next line is written.  Never blocks."""
        self._reopening = True
        self._has_lines.set()

    def stop(self) -> None:
        """Write the queued lines, end the thread and close the file."""
        super().stop()
        os.close(self._fd)

    def _write(self, lines: list[str]) -> None:
        if self._reopening:
            self._reopening = False
            self._open_again()
        if not lines:
            return
        # A full disk can cut a line in the middle; the next one must not continue it.
        start, self._cut = [""] if self._cut else [], True
        try:
            self._write_bytes("\n".join([*start, *lines, ""]).encode("utf-8", "replace"))
            self._failing = self._cut = False
        except OSError as error:
            metrics.child(metrics.LOG_LINES_LOST, self.name).inc(len(lines))
            # Once: standard error gets the line too, and each further one would fail here as well.
            if not self._failing:
                self._failing = True
                _log.error("the log file cannot be written", extra={"reason": str(error)})

    def _open_again(self) -> None:
        try:
            fd = _open(self._path)
        except OSError as error:
            _log.error("the log file cannot be opened again; the old one stays in use", extra={"reason": str(error)})
            return
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._cut = False


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)


class LineWriter(logging.Handler):
    """Formats records, and gives each line to its outputs.

    Call stop() last: it writes the queued lines and ends the outputs' threads.
    """

    def __init__(self, fd: int) -> None:
        """Write to the file descriptor `fd`."""
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._outputs: tuple[LineOutput, ...] = (LineOutput(fd),)

    def add_file(self, path: Path) -> None:
        """Write to a file too.

        Raises:
            OSError: it cannot be opened.
        """
        self._outputs = (*self._outputs, FileOutput(path))

    def reopen(self) -> None:
        """Continue in a new file if the file was renamed.  Never blocks."""
        for output in self._outputs:
            output.reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Format `record` and queue its line."""
        self.put(self.format(record))

    def put(self, line: str) -> None:
        """Queue a formatted line; drop and count it if the queue is full."""
        for output in self._outputs:
            output.put(line)

    def stop(self) -> None:
        """Write the queued lines and end the threads."""
        for output in self._outputs:
            output.stop()


class FrequentLog:
    """A logger for the lines that every request writes.

    It makes no LogRecord, which takes longer than encoding the line.  Levels and logger names are those of `logging`;
    until start() is called, so is everything else.
    """

    _writer: ClassVar[LineWriter | None] = None

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)
        self._head = f'"level":"info","logger":"{name}",'

    def info(self, message: str, fields: Mapping[str, object] | msgspec.Struct) -> None:
        """Write a line with `fields`, which are not empty, at level INFO; `message` needs no escapes in JSON."""
        if self._writer is None:
            self._log.info(message, extra=_list_fields(fields))
        elif self._log.isEnabledFor(logging.INFO):
            head = f'{{"time":"{format_time(datetime.now(UTC))}",{self._head}"message":"{message}",'
            self._writer.put(_make_safe(head + _encode_fields(fields)[1:]))


def _encode_fields(fields: Mapping[str, object] | msgspec.Struct) -> str:
    """Return the fields as a JSON object."""
    try:
        return _encode(fields).decode()
    except (TypeError, ValueError, OverflowError):
        # msgspec rejects lone surrogates in a caller's text and integers above 64 bits; json writes both.
        return json.dumps(_list_fields(fields), default=str, skipkeys=True, separators=(",", ":"))


def _list_fields(fields: Mapping[str, object] | msgspec.Struct) -> Mapping[str, object]:
    return msgspec.structs.asdict(fields) if isinstance(fields, msgspec.Struct) else fields


def _make_safe(line: str) -> str:
    """Return a line without secrets, and with escapes for characters that a terminal obeys."""
    line = _redaction.line(line)
    return line if line.isascii() and "\x7f" not in line else escape_json_controls(line)


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
    # It warns of each pipeline that breaks with its connection.  The ledger says once why the connection broke.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    return writer
