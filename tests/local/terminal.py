"""A terminal of the size that a person has, with the screen that the person sees."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pexpect
import pyte

from tests.harness import POLL_S, ROOT, TIMEOUT_S
from tests.local.machine import Machine


class Terminal:
    """A command in a terminal.  A thread reads its output, as a terminal does."""

    def __init__(self, child: pexpect.spawn[bytes], width: int, height: int) -> None:
        self.child = child
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        #: Everything that the command has written.
        self.output = b""
        self._reading = True
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, condition: Callable[[str], object]) -> str:
        """Wait until `condition` holds for the text of the screen; return the text."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            text = self.text
            if condition(text):
                return text
            assert time.monotonic() < deadline, text
            time.sleep(POLL_S)

    def press(self, keys: str) -> None:
        self.child.send(keys)

    def resize(self, width: int, height: int) -> None:
        with self._lock:
            self._screen.resize(height, width)
            self._screen.reset()
        self.child.setwinsize(height, width)

    def wait_end(self) -> int:
        """Return the exit status when the command has ended."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), self.text
        self.child.close()
        assert self.child.exitstatus is not None, self.child.signalstatus
        return self.child.exitstatus

    def hang_up(self) -> None:
        """Close the terminal, and wait until the command has ended."""
        self._reading = False
        self._thread.join(TIMEOUT_S)
        process = self.child.ptyproc
        process.fileobj.close()  # the kernel sends SIGHUP
        deadline = time.monotonic() + TIMEOUT_S
        while process.isalive():
            assert time.monotonic() < deadline
            time.sleep(POLL_S)
        process.closed = True

    def stop(self) -> None:
        if self._thread.is_alive():
            self.child.kill(signal.SIGKILL)
        self._thread.join(TIMEOUT_S)
        self.child.close(force=True)

    def _read(self) -> None:
        while self._reading:
            try:
                data = self.child.read_nonblocking(65536, timeout=POLL_S)
            except pexpect.EOF:
                return
            except pexpect.TIMEOUT:
                continue
            with self._lock:
                self.output += data
                self._stream.feed(data)


@contextlib.contextmanager
def in_terminal(
    machine: Machine, *arguments: str, width: int = 80, height: int = 24, **environment: str
) -> Iterator[Terminal]:
    """Run tornado-proxy in a terminal."""
    variables = {"PYTHONPATH": str(ROOT), **machine.variables, "TERM": "xterm-256color", **environment}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "tornado_proxy", *arguments],
        cwd=str(ROOT),
        env=variables,
        dimensions=(height, width),
        timeout=TIMEOUT_S,
    )
    terminal = Terminal(child, width, height)
    try:
        yield terminal
    finally:
        terminal.stop()
