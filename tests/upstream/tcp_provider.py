"""Providers that misbehave on purpose: plain asyncio servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def run_provider(respond: Respond, heads: list[bytes] | None = None) -> AsyncIterator[str]:
    """Call `respond` on each connection after the request's headers; yield the base URL.

    Args:
        respond: Writes the response; the connection is closed when it returns.
        heads: Collects the received request heads, unchanged.
    """
    writers: set[asyncio.StreamWriter] = set()
    idle = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            await respond(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        writers.discard(writer)
        if not writers:
            idle.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in tuple(writers):
            writer.transport.abort()
        if writers:
            await asyncio.wait_for(idle.wait(), 5)
        await asyncio.sleep(0)  # lets the transports close before the loop does
