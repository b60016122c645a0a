"""Memory that a piece of code keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def measure_kept_bytes(run: Callable[[], object]) -> int:
    """Return the bytes that Python has allocated in `run` and not freed when it has ended."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
