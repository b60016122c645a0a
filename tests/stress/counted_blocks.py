"""The server as tests.server.with_constants starts it; at SIGUSR2 it prints how many blocks of memory Python has.

A block is the memory of one small object.  Their number shows the growth of the server far more exactly than resident
memory, of which the allocator keeps some megabytes.  https://docs.python.org/3/library/sys.html#sys.getallocatedblocks
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
import threading

from tests.server.with_constants import set_constant
from tornado_proxy.cli import main

#: The start of the line.
PRINTED = "allocated blocks: "


def empty_function_caches() -> None:
    """Empty the caches of functions, which are not full in a short run."""
    for name, module in list(sys.modules.items()):
        for one in list(vars(module).values()) if name.startswith("tornado_proxy.") else ():
            if isinstance(one, functools._lru_cache_wrapper):
                one.cache_clear()


def print_at_signal() -> None:
    """Print the number at each signal, in a thread of its own."""
    while True:
        signal.sigwait({signal.SIGUSR2})
        empty_function_caches()
        gc.collect()
        sys.stderr.write(f"{PRINTED}{sys.getallocatedblocks()}\n")


if __name__ == "__main__":
    # All threads inherit it, so that the signal waits for sigwait().
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    threading.Thread(target=print_at_signal, daemon=True).start()
    for name, value in json.loads(os.environ["CONSTANTS"]).items():
        set_constant(name, value)
    main()
