"""Starts background tasks.  Each task is named, kept alive, watched, and its failure is logged and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)

#: Running tasks.  The event loop keeps only weak references, so a task without another reference can be collected
#: while it waits (Python documentation, "asyncio.create_task").
_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run `work` in the background and return its task.

    A failure is logged and counted under `name`; cancellation is not a failure.
    """
    # uvloop's create_task() makes the same object, and takes as long again to name it.
    task = asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
    _running.add(task)
    task.add_done_callback(_on_done)
    return task


def _on_done(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        metrics.TASK_FAILURES.labels(task.get_name()).inc()
        _log.error("background task failed", extra={"task": task.get_name()}, exc_info=error)
