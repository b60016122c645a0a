"""Start processes on their cores, wait until they are ready, and stop them with their process group."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.machine import on_cores

ROOT = Path(__file__).parent.parent

#: Seconds until a process must be ready; LiteLLM's proxy takes ten to import.
_START_TIMEOUT_S = 90

#: Seconds between SIGTERM to a process and SIGKILL to its group.
_STOP_TIMEOUT_S = 5


@contextlib.contextmanager
def running_process(
    command: Sequence[str], cores: frozenset[int], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` on `cores` while the block runs; its output goes to the file `log`."""
    with log.open("wb") as output, on_cores(cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            # A process group of its own, so that its children can be killed with it.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_text(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """Wait for `pattern` in `log` and return its first group.

    Raises:
        RuntimeError: the process ended, or the time is up.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found is not None:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def wait_for_port(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    """Return when a process listens on `port`.

    Raises:
        RuntimeError: the process ended, or the time is up.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on {port}:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """Return a free port, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
