"""The server without Python's collector of cycles; SIGUSR1 has it say what nothing else would have freed.

What a call leaves to the collector stays for as long as it takes to come, and that is long in a server: each connection
that ended would still hold its buffers.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import signal

from tornado_proxy.cli import main

#: What the line begins with; counts by type follow, as JSON.
LEFT = "left to the collector: "


def _tell(*_: object) -> None:
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    kinds = collections.Counter(type(one).__qualname__ for one in gc.garbage if "tornado" in type(one).__module__)
    gc.set_debug(0)
    gc.garbage.clear()
    os.write(2, f"{LEFT}{json.dumps(kinds)}\n".encode())


if __name__ == "__main__":
    gc.disable()
    signal.signal(signal.SIGUSR1, _tell)
    main()
