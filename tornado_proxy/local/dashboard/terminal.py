"""The terminal of the dashboard: whether it can show one, and its settings, for a dashboard that crashes."""

from __future__ import annotations

import contextlib
import os
import sys
import termios

#: Leave the alternate screen, reset attributes, show the cursor, wrap lines; end mouse and focus reports, bracketed
#: paste and the keyboard protocol of kitty (xterm, "Control Sequences"; kitty, "Comprehensive keyboard handling").
_RESET = b"\x1b[?1049l\x1b[0m\x1b[?25h\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[<u"


def is_terminal() -> bool:
    """Return True if standard input and output are a terminal that can place characters."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class SavedTerminal:
    """The settings of the terminal before a dashboard."""

    def __init__(self) -> None:
        self._settings = termios.tcgetattr(sys.stdin.fileno())

    def restore(self) -> None:
        """Make the terminal usable again, if it is still there."""
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._settings)
            os.write(sys.stdout.fileno(), _RESET)
