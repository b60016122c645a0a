"""Logging: JSON lines on standard error, and in a file if the configuration names one.

    log.info ──> JSON line ──> line_output.py: a queue and a thread for standard error, and for the file

The calling thread encodes the line, once for both.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import msgspec

from tornado_proxy.domain.text import format_time
from tornado_proxy.observability.line_output import FileOutput, LineOutput
from tornado_proxy.wire.redaction import Redaction
from tornado_proxy.wire.visible_text import escape_json_controls

#: Attributes of every LogRecord; all others were given as `extra`.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: Masks the secrets of the current configuration in every line.
_redaction = Redaction(())

_encode = msgspec.json.Encoder(enc_hook=str).encode


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
    return writer
