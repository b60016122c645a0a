"""The server with a clock on its event loop: it logs each callback that uses more CPU time than REPORTED_CALLBACK_S.

It runs on asyncio's own loop, whose callbacks are Python objects; uvloop's cannot be timed one by one.  It also logs
the longest callback since SIGUSR2, by which a test says that the start is over, and sets the constants of
with_constants.py.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time

import uvloop

from tests.server.with_constants import set_constant
from tornado_proxy.cli import main

#: Seconds of CPU time that a callback may take before it is logged.
REPORTED_CALLBACK_S = 0.02
#: Texts of the log lines that a test looks for.
BLOCKED, LONGEST, STARTED = "event loop blocked for", "longest callback of the event loop", "timing starts"


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def time_callbacks() -> None:
    """Measure every callback of asyncio's loops."""
    run = asyncio.Handle._run  # asyncio has no hook around callbacks
    longest = 0.0

    def timed_run(handle: asyncio.Handle) -> None:
        nonlocal longest
        # CPU time of this thread: unlike the wall clock it does not count the time in which another process ran.
        started = time.thread_time()
        run(handle)
        taken = time.thread_time() - started
        if taken > longest:
            longest = taken
            _log(f"{LONGEST}: {taken * 1000:.1f} ms")
        if taken > REPORTED_CALLBACK_S:
            _log(f"{BLOCKED} {taken * 1000:.1f} ms: {handle!r}")

    def start(*_: object) -> None:
        nonlocal longest
        longest = 0.0
        _log(STARTED)

    signal.signal(signal.SIGUSR2, start)
    asyncio.Handle._run = timed_run  # type: ignore[method-assign]


if __name__ == "__main__":
    importlib.import_module("tornado_proxy.app")
    uvloop.new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]
    time_callbacks()
    for name, value in json.loads(os.environ["CONSTANTS"]).items():
        set_constant(name, value)
    main()
