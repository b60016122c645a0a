"""Keeps log lines while the dashboard has the terminal: printed there, they would be lost in the next frame."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator

#: Log lines that are kept.
_MAX_LINES = 200


class _HeldLog(logging.Handler):
    """Keeps records, and shows each one by `on_warning(logger, message)`."""

    def __init__(self, on_warning: Callable[[str, str], object]) -> None:
        super().__init__()
        self._on_warning = on_warning
        self.records: deque[logging.LogRecord] = deque(maxlen=_MAX_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        self._on_warning(record.name, message if error is None else f"{message}: {error!r}")


@contextlib.contextmanager
def held_log(on_warning: Callable[[str, str], object]) -> Iterator[None]:
    """Show log lines by `on_warning(logger, message)`, from any thread; print them at the end.

    A log that goes to a file is written at once.
    """
    root = logging.getLogger()
    handlers, held = root.handlers[:], _HeldLog(on_warning)
    on_terminal = sys.stderr.isatty()
    root.handlers[:] = [held] if on_terminal else [*handlers, held]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        if on_terminal:
            for record in held.records:
                root.handle(record)
