"""Memory, file descriptors, requests in flight and log errors of the server's process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

from tests.harness import ProxyProcess


def resident_kib(proxy: ProxyProcess, field: str = "VmRSS") -> int:
    """Return the resident memory in KiB: VmRSS is the current one, VmHWM the maximum so far (proc(5))."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


def open_files(proxy: ProxyProcess) -> int:
    """Return the number of open file descriptors."""
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def requests_in_flight(proxy: ProxyProcess) -> int:
    """Return the gauge of /metrics."""
    lines = proxy.fetch_admin("/metrics")[1].splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("llm_proxy_requests_in_flight "))))


def error_messages(proxy: ProxyProcess) -> list[str]:
    """Return the messages of all log lines of level warning and above."""
    lines = [json.loads(line) for line in proxy.log if line.startswith("{")]
    return [str(line["message"]) for line in lines if line["level"] in ("warning", "error", "critical")]


class MemorySamples:
    """Resident memory in the course of a run, in KiB."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def growth_kib(self) -> int:
        """Return the median of the last third minus that of the first."""
        third = max(1, len(self.samples) // 3)
        return int(statistics.median(self.samples[-third:]) - statistics.median(self.samples[:third]))


@contextlib.asynccontextmanager
async def sampled_memory(proxy: ProxyProcess) -> AsyncIterator[MemorySamples]:
    """Sample the memory ten times a second within the block."""
    memory = MemorySamples()

    async def sample() -> None:
        while True:
            memory.samples.append(resident_kib(proxy))
            await asyncio.sleep(0.1)

    sampling = asyncio.create_task(sample())
    try:
        yield memory
    finally:
        sampling.cancel()
