"""Runs a command beside the local proxy, with the terminal of this program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence

#: Exit statuses of shells for a command that is not found, one that cannot be run, and, plus its number, a signal
#: (POSIX, XCU 2.8.2).
NOT_FOUND, NOT_EXECUTABLE, _SIGNALLED = 127, 126, 128


async def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` until it ends; return its exit status as a shell states it.

    Signals that the terminal sends reach the command itself; SIGTERM and SIGHUP are passed on.

    Raises:
        OSError: the command cannot be run.
    """
    loop = asyncio.get_running_loop()
    process = await asyncio.create_subprocess_exec(*command, env=dict(environment))
    # The terminal sends SIGINT to both; the command decides about it.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _pass_on, process, number)
    status = await process.wait()
    return _SIGNALLED - status if status < 0 else status


def _pass_on(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)
