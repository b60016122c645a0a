"""Starts programs by the fork server (fork_server.py), one for each test process, which starts with the first program.

Without process file descriptors, which only Linux has, each program is a new process.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tests.fork_server import Request

ROOT = Path(__file__).parent.parent

_start_lock = threading.Lock()


class ForkedProgram:
    """A program that the fork server runs, with the members of subprocess.Popen that tests use."""

    def __init__(self, module: str, arguments: list[str], environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        """Start `python -m MODULE ARGUMENT...`; its standard error is a pipe."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        request = Request(module, arguments, str(cwd), dict(environment), limits)
        errors, program_errors = os.pipe()
        self.stderr: IO[str] | None = open(errors)  # noqa: SIM115  # closed by the harness, as the pipe of a Popen is
        self.returncode: int | None = None
        self._status, program_status = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._waiting = threading.Lock()
        files = [0, 1, program_errors, program_status.fileno()]
        with _start_lock:
            socket.send_fds(_fork_server(), [json.dumps(asdict(request)).encode()], files)
        os.close(program_errors)
        program_status.close()
        self.pid = self._receive()

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        if self._waiting.acquire(blocking=False):
            try:
                self._wait(0)
            except TimeoutError:
                pass
            finally:
                self._waiting.release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, which is negative for a signal.

        Raises:
            subprocess.TimeoutExpired: The program runs on after `timeout` seconds.
        """
        with self._waiting:
            try:
                return self._wait(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self._status.settimeout(timeout)
            self.returncode = self._receive()
            self._status.close()
        return self.returncode

    def _receive(self) -> int:
        try:
            message = self._status.recv(64)
        except BlockingIOError:
            raise TimeoutError from None
        assert message, "the fork server has ended"
        return int(message)


@functools.cache
def _fork_server() -> socket.socket:
    """Start the fork server; return the socket that its requests are sent to."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    theirs.close()

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours
