"""Runs the dashboard in a process of its own, so that drawing cannot delay a stream.

    relay ── one JSON message a line, over a socket pair ──> python -m tornado_proxy.local.dashboard ──> terminal
          <── exit status ──────────────────────────────────

The relay waits for the dashboard only in the task that sends: a terminal that does not read leaves the feed unread,
which is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys

from tornado_proxy import tasks
from tornado_proxy.local.dashboard.messages import EndStatus, Introduction, encode
from tornado_proxy.local.dashboard.terminal import SavedTerminal
from tornado_proxy.local.dashboard.view import DashboardView

#: Seconds between two updates.
_INTERVAL_S = 0.25

#: Seconds that the dashboard gets to leave the terminal.
_CLOSE_LIMIT_S = 5.0

#: Variables that the dashboard needs: the terminal, its locale and clipboard, and those of Textual.  It has no token.
#: Without COLUMNS and LINES, which a shell may export: Textual would take them for the size after a resize too.
_ENVIRONMENT = (
    "COLORFGBG",
    "COLORTERM",
    "DISPLAY",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "NO_COLOR",
    "PATH",
    "SSH_CONNECTION",
    "SSH_TTY",
    "TERM",
    "TERM_PROGRAM",
    "TMUX",
    "TZ",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
)


class Dashboard:
    """One run of the dashboard: call run(); close() ends it from outside."""

    def __init__(self, view: DashboardView) -> None:
        self._view = view
        self._closing = asyncio.Event()

    async def run(self, introduction: Introduction) -> EndStatus | None:
        """Show the dashboard until the person quits or close() is called; return None if it fails.

        The terminal is as before when this returns.
        """
        terminal = SavedTerminal()
        own, others = socket.socketpair()
        try:
            process = await _start(others)
        except OSError:
            own.close()
            return None
        _, writer = await asyncio.open_connection(sock=own)
        sending = tasks.spawn(self._send(writer, introduction), "send to the dashboard")
        closing = tasks.spawn(self._close(writer, process), "close the dashboard")
        status = await process.wait()
        for task in (sending, closing):
            task.cancel()
        writer.close()
        try:
            return EndStatus(status)
        except ValueError:
            terminal.restore()
            return None

    def close(self) -> None:
        """End the dashboard; run() returns when it has left the terminal."""
        self._closing.set()

    async def _send(self, writer: asyncio.StreamWriter, introduction: Introduction) -> None:
        feed, running = self._view.feed, self._view.running
        with contextlib.suppress(ConnectionError):
            writer.write(encode(introduction))
            while not writer.is_closing():  # uvloop raises RuntimeError for a write to a closed transport
                update = feed.take_update(running.describe(), len(running))
                if update is not None:
                    writer.write(encode(update))
                    await writer.drain()
                await asyncio.sleep(_INTERVAL_S)

    async def _close(self, writer: asyncio.StreamWriter, process: asyncio.subprocess.Process) -> None:
        await self._closing.wait()
        writer.close()
        await asyncio.sleep(_CLOSE_LIMIT_S)
        process.kill()


async def _start(connection: socket.socket) -> asyncio.subprocess.Process:
    """Start the process with one end of the connection, which is closed here; raise OSError if that fails."""
    with connection:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tornado_proxy.local.dashboard", str(connection.fileno())),
            pass_fds=(connection.fileno(),),
            # Textual draws on standard error, which may be a file here.
            stderr=sys.stdout.fileno(),
            env=_make_environment(),
        )


def _make_environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(("LC_", "TEXTUAL", "ESCDELAY"))
    }
    return {**inherited, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
