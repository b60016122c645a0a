"""The server without Python's cycle collector; on SIGUSR2 it logs the objects that only the collector would free.

Objects left to the collector stay until its next run, which is rare in a server: a closed connection would keep its
buffers for minutes.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import signal

from tornado_proxy.cli import main

#: The start of the line; counts by type follow, as JSON.
UNCOLLECTED = "left to the collector: "


def _report_cycles(*_: object) -> None:
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    types = [type(garbage) for garbage in gc.garbage]
    counts = collections.Counter(kind.__qualname__ for kind in types if "tornado" in kind.__module__)
    gc.set_debug(0)
    gc.garbage.clear()
    os.write(2, f"{UNCOLLECTED}{json.dumps(counts)}\n".encode())


if __name__ == "__main__":
    gc.disable()
    signal.signal(signal.SIGUSR2, _report_cycles)
    main()
