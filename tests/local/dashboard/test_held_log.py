"""Log lines do not disturb the dashboard, and none is lost."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from tornado_proxy.local.dashboard.held_log import held_log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The log, written as text, in place of the handlers of pytest."""
    output = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(output)])
    return output


def warn(shown: list[tuple[str, str]], written: io.StringIO) -> str:
    """Log while the dashboard is shown; return what is written meanwhile."""
    with held_log(lambda logger, message: shown.append((logger, message))):
        logging.getLogger("test.ledger").warning("disk is %s", "full")
        try:
            raise OSError("no space")
        except OSError:
            logging.getLogger("test.ledger").exception("record lost")
        return written.getvalue()


def test_terminal_gets_log_lines_after_the_dashboard(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown: list[tuple[str, str]] = []

    assert warn(shown, written) == ""

    assert shown == [("test.ledger", "disk is full"), ("test.ledger", "record lost: OSError('no space')")]
    assert written.getvalue().startswith("disk is full\nrecord lost\nTraceback")


def test_log_file_gets_lines_at_once(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    assert warn([], written).startswith("disk is full\nrecord lost")
    assert written.getvalue().count("disk is full") == 1
