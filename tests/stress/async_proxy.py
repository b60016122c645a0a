"""The real server, started from within a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.harness import TIMEOUT_S, ProxyProcess, running_proxy


@contextlib.asynccontextmanager
async def async_proxy(upstream: str, **config: Any) -> AsyncIterator[ProxyProcess]:
    """Run the server with a new ledger; stop it at the end.  `config` is for running_proxy()."""
    with tempfile.TemporaryDirectory() as folder:
        context = running_proxy(Path(folder), upstream, **config)
        proxy = await asyncio.to_thread(context.__enter__)
        try:
            yield proxy
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


async def becomes_true(is_true: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    """Poll `is_true` in a thread; return False if it stays false until the timeout."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not await asyncio.to_thread(is_true):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
            return True
    return False
