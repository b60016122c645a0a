"""Starts programs by the fork server (fork_server.py), one for each test process, which starts with the first program.

Other modules, and all modules where the system has no process file descriptors as Linux has, run in a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.fork_server import Request

_ROOT = Path(__file__).parent.parent

#: The modules that change nothing before the server is imported, so that the fork server can run them.
FORKED_MODULES = (
    "tornado_proxy",
    "tests.ledger.child",
    "tests.local.parallel_tokens",
    "tests.server.with_constants",
    "tests.state.rotating",
    "tests.state.setting_keys",
    "tests.stress.counted_blocks",
)

#: Variables that are read before a program can run, so that a program with other values needs a new process.
_START_VARIABLES = ("LD_PRELOAD", "PYTHONDEVMODE", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONWARNINGS")

#: Seconds.  Each command of a test takes far less.
_RUN_TIMEOUT_S = 60

_start_lock = threading.Lock()


def start_program(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path = _ROOT,
    pipes: Collection[str] = ("stdout", "stderr"),
) -> subprocess.Popen[str] | ForkedProgram:
    """Start `python -m MODULE ARGUMENT...` without input; the output that is not in `pipes` is discarded."""
    if module in FORKED_MODULES and _has_fork_environment(environment) and hasattr(os, "pidfd_open"):
        return ForkedProgram(module, arguments, environment, cwd=cwd, pipes=pipes)
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "stdout" in pipes else subprocess.DEVNULL,
        stderr=subprocess.PIPE if "stderr" in pipes else subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env=environment,
    )


def _has_fork_environment(environment: Mapping[str, str]) -> bool:
    """Return True if Python would start with these variables as the fork server did."""
    same = all(environment.get(name) == os.environ.get(name) for name in _START_VARIABLES)
    return same and environment.get("PYTHONPATH", str(_ROOT)) in (str(_ROOT), os.environ.get("PYTHONPATH"))


def run_program(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = _ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; return its exit code and output."""
    with start_program(module, arguments, environment, cwd=cwd) as program:
        try:
            output, errors = program.communicate(timeout=_RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
        return subprocess.CompletedProcess(arguments, program.wait(), output, errors)


class ForkedProgram:
    """A program that the fork server runs, with the members of subprocess.Popen that tests use."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: Path,
        pipes: Collection[str],
    ) -> None:
        """Start the program; start_program() describes the arguments."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        request = Request(module, list(arguments), str(cwd), dict(environment), limits)
        # The caller closes them, as those of a Popen.
        self.stdout, standard_output = _open_output(piped="stdout" in pipes)
        self.stderr, standard_error = _open_output(piped="stderr" in pipes)
        self._status, program_status = socket.socketpair(type=socket.SOCK_SEQPACKET)
        files = [os.open(os.devnull, os.O_RDONLY), standard_output, standard_error, program_status.detach()]
        with _start_lock:
            socket.send_fds(_fork_server(), [json.dumps(asdict(request)).encode()], files)
        for fd in files:
            os.close(fd)
        self.pid = self._receive()
        self.returncode: int | None = None
        self._waiting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        # A thread that waits has the lock.
        if self._waiting.acquire(blocking=False):
            try:
                with contextlib.suppress(TimeoutError):
                    self._wait(0)
            finally:
                self._waiting.release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, which is negative for a signal.

        Raises:
            subprocess.TimeoutExpired: The program still runs after `timeout` seconds.
        """
        with self._waiting:
            try:
                return self._wait(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return the output and the errors of the program, read to their end; raise as wait() does."""
        with ThreadPoolExecutor(2) as pool:
            output, errors = pool.submit(_read_all, self.stdout), pool.submit(_read_all, self.stderr)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return output.result(), errors.result()

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


def _read_all(pipe: IO[str] | None) -> str:
    if pipe is None:
        return ""
    with pipe:
        return pipe.read()


def _open_output(*, piped: bool) -> tuple[IO[str] | None, int]:
    """Return the end of a pipe that the test reads, if any, and the file that the program writes."""
    if not piped:
        return None, os.open(os.devnull, os.O_WRONLY)
    reading, writing = os.pipe()
    return open(reading), writing


@functools.cache
def _fork_server() -> socket.socket:
    """Start the fork server; return the socket that its requests are sent to."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        cwd=_ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    theirs.close()

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours
