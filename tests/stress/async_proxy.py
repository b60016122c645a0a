"""The real server in a process of its own, from within a running loop."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.harness import TIMEOUT_S, ProxyProcess, running_proxy


@contextlib.asynccontextmanager
async def serving(upstream: str, **config: Any) -> AsyncIterator[ProxyProcess]:
    """The server in front of `upstream`, with a ledger of its own; it is stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        proxy = running_proxy(Path(folder), upstream, **config)
        running = await asyncio.to_thread(proxy.__enter__)
        try:
            yield running
        finally:
            await asyncio.to_thread(proxy.__exit__, None, None, None)


async def becomes_true(holds: Callable[[], bool], within_s: float = TIMEOUT_S) -> bool:
    """Whether `holds()` becomes true in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not await asyncio.to_thread(holds):  # noqa: ASYNC110  # it is another process that changes
                await asyncio.sleep(0.1)
            return True
    return False
