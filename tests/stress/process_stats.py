"""What the server's process holds, seen from outside while a run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

from tests.harness import ProxyProcess


def resident_kib(proxy: ProxyProcess, which: str = "VmRSS") -> int:
    """Memory in KiB: VmRSS is what there is, VmHWM the most there was."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(which))


def open_files(proxy: ProxyProcess) -> int:
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def in_flight(proxy: ProxyProcess) -> int:
    """What /metrics says."""
    lines = proxy.fetch_admin("/metrics")[1].splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("llm_proxy_requests_in_flight "))))


def error_lines(proxy: ProxyProcess) -> list[str]:
    """What the server logged that a person should see."""
    lines = [json.loads(line) for line in proxy.log if line.startswith("{")]
    return [str(line["message"]) for line in lines if line["level"] in ("warning", "error", "critical")]


class Memory:
    """The server's memory in the course of a run."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def growth_kib(self) -> int:
        """From the median of the first third to that of the last."""
        third = max(1, len(self.samples) // 3)
        return int(statistics.median(self.samples[-third:]) - statistics.median(self.samples[:third]))


@contextlib.asynccontextmanager
async def watched(proxy: ProxyProcess) -> AsyncIterator[Memory]:
    """Look at the memory every tenth of a second."""
    memory = Memory()

    async def look() -> None:
        while True:
            memory.samples.append(resident_kib(proxy))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield memory
    finally:
        looking.cancel()
