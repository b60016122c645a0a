"""Runs a simulator for synchronous code: in a thread of its own, on an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tornado_proxy.simulator.simulator import Simulator


@contextmanager
def running_simulator(simulator: Simulator | None = None) -> Iterator[str]:
    """Run `simulator` (a new one by default) on a free loopback port; yield its base URL, without `/v1`.

    On exit it closes all connections, stops the loop and joins the thread.
    """
    served = simulator or Simulator()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(served.start(), loop).result(timeout=10)
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(_stop(served), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


async def _stop(simulator: Simulator) -> None:
    await simulator.stop()
    # A handler that waits ends only after its connection is closed; a loop that is closed before logs pending tasks.
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=5)
    await asyncio.get_running_loop().shutdown_asyncgens()
