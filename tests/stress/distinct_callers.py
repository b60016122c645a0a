"""A request of each of many callers: the server's memory does not grow with their number.

Each request has a participant token of its own.  Each participant and each token has a budget, and each participant
limits, so that the ledger and the budgets have rows of each.  The work that the server does with all of them, each
minute or five, it does each five seconds here.  The memory is compared from the middle of the run, when the server's
caches are full, to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from tests.harness import TIMEOUT_S, ProxyProcess, mint, wait_until
from tests.server.raw_provider import read_request
from tests.stress.async_proxy import async_proxy
from tests.stress.counted_blocks import PRINTED
from tests.stress.process_stats import error_messages, resident_kib
from tests.stress.report import Report

_RESPONSE_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
    }
).encode()
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_RESPONSE_BODY),
    _RESPONSE_BODY,
)
_REQUEST_BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]}).encode()

_BUDGETS = {
    "default_project": {
        "budgets": [
            {"period": "day", "usd": "20", "per": "participant"},
            {"period": "total", "usd": "20", "per": "token"},
        ],
        "limits": {"per_participant": {"requests_per_minute": 1000, "tokens_per_minute": 1_000_000}},
    }
}
_CONSTANTS: dict[str, float | list[float]] = {
    "tornado_proxy.budgets.keeper._COMPARE_S": 5,
    "tornado_proxy.budgets.keeper._COMPARE_FACTOR": 5,
    "tornado_proxy.budgets.schedule._CLEANUP_S": 5,
    # Caches are full after a few callers.
    "tornado_proxy.auth.token_cache.MAX_CACHED_TOKENS": 20,
    "tornado_proxy.gateway.budgets.token_budgets._MAX_NOTED": 20,
    "tornado_proxy.gateway.budgets.reservations._MAX_KEPT": 20,
    "tornado_proxy.gateway.budgets.shared_bounds._MAX_KEPT": 20,
    "tornado_proxy.budgets.leases.slices._MAX_CACHED": 20,
}

#: KiB that the maximum of the memory may grow in the second half of a run.
_MAX_GROWTH_KIB = 16 * 1024

#: Blocks of memory that may be kept for each caller in the second half: 0 to 6 in a short run, and the objects that one
#: request leaves by a fault are more.
_MAX_KEPT_BLOCKS = 24

#: Counts of blocks after each part, of which the least is used, and the seconds before each.
_COUNTS, _COUNT_PAUSE_S = 3, 0.7

#: Parts of a run after which the memory is read.
_PARTS = 4


@dataclass(frozen=True, slots=True)
class CallersRun:
    """The size of a run: the number of callers, and of connections on which their requests are sent."""

    callers: int
    connections: int


async def run(size: CallersRun) -> Report:
    """Send a request of each caller; compare the memory of the server in the course of the run."""
    report = Report()
    async with (
        _running_provider() as url,
        async_proxy(url, program="tests.stress.counted_blocks", constants=_CONSTANTS, budgets=_BUDGETS) as proxy,
    ):
        start = resident_kib(proxy)
        maxima, blocks = [], []
        for part in range(_PARTS):
            names = [f"caller-{part}-{number:07}" for number in range(size.callers // _PARTS)]
            await _send_all(proxy, names, size.connections)
            maxima.append(resident_kib(proxy, "VmHWM"))
            blocks.append(await _count_settled_blocks(proxy))
        report.add_row("memory", f"{start} KiB at the start, at most {maxima} after each quarter of the callers")
        growth = maxima[-1] - maxima[_PARTS // 2 - 1]
        report.require(growth <= _MAX_GROWTH_KIB, f"memory grows: {growth} KiB in the second half")
        kept = (blocks[-1] - blocks[_PARTS // 2 - 1]) / (size.callers // 2)
        report.add_row("objects", f"{kept:.0f} blocks of memory for each caller in the second half")
        report.require(kept <= _MAX_KEPT_BLOCKS, f"memory grows: {kept:.0f} blocks for each caller")
        messages = set(error_messages(proxy))
        report.require(not messages, f"the log has {messages}")
    return report


async def _count_settled_blocks(proxy: ProxyProcess) -> int:
    """Return the least number of blocks in some seconds: what a request has left goes when its record is counted."""
    counts = []
    for _ in range(_COUNTS):
        await asyncio.sleep(_COUNT_PAUSE_S)
        counts.append(await asyncio.to_thread(_count_blocks, proxy))
    return min(counts)


def _count_blocks(proxy: ProxyProcess) -> int:
    """Return the number of blocks that the server has allocated."""
    printed = _list_counts(proxy)
    proxy.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: len(_list_counts(proxy)) > len(printed), "the number of blocks")
    return _list_counts(proxy)[-1]


def _list_counts(proxy: ProxyProcess) -> list[int]:
    return [int(line.removeprefix(PRINTED)) for line in proxy.log if line.startswith(PRINTED)]


async def _send_all(proxy: ProxyProcess, names: Iterable[str], connections: int) -> None:
    remaining = iter(names)
    port = int(proxy.base_url.rpartition(":")[2])

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for name in remaining:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(_make_request(name))
                await _read_response(reader)
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))


def _make_request(name: str) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: {len(_REQUEST_BODY)}\r\n"
        f"Authorization: Bearer {mint(name=name)}\r\nContent-Type: application/json\r\n\r\n"
    )
    return head.encode() + _REQUEST_BODY


async def _read_response(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise AssertionError(head.decode("latin-1"))
    await reader.readexactly(len(_RESPONSE_BODY))


@contextlib.asynccontextmanager
async def _running_provider() -> AsyncIterator[str]:
    """Yield the URL of a provider with the same response to each request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await read_request(reader)
                writer.write(_RESPONSE)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
