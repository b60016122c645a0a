"""The event loop of a server: uvloop, and when Python searches for garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import uvloop

#: New objects after which the youngest ones are searched for cycles.  Requests leave none, and
#: 32 requests whose records wait for a commit hold several times as many as Python's own threshold, 700.
_COLLECTION_THRESHOLD = 10_000


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on the event loop of a server until it returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def freeze_startup_objects() -> None:
    """Exclude all objects that exist now from garbage collection, and collect later ones less often.

    Call this once, after start: modules, schemas and prices live as long as the process, and traversing them makes
    each full collection slower.
    """
    # Collect first: a frozen cycle is never freed.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
