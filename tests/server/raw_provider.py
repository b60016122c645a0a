"""A provider on a plain socket that does exactly what a test tells it, and clients as plain."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.harness import ProxyProcess, mint, running_proxy

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
EVENT = b'data: {"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
USAGE = (
    b'data: {"id":"c1","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\ndata: [DONE]\n\n'
)
END = b"0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def is_whole(answer: bytes) -> bool:
    """Whether an answer came to its end: that of its chunks, or of the length that was told with its head."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return body.endswith(END) if length is None else len(body) == int(length[1])


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def run_against(serve: Serve, folder: Path, act: Callable[[ProxyProcess], Awaitable[Any]], **config: Any) -> Any:
    """What `act` gives, with the real server in front of a provider that serves each connection with `serve`."""

    async def run() -> Any:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            proxy = running_proxy(folder, url, **config)
            running = await asyncio.to_thread(proxy.__enter__)
            try:
                return await act(running)
            finally:
                await asyncio.to_thread(proxy.__exit__, None, None, None)

    return asyncio.run(run())


def request(*, stream: bool = True, connection: str = "close", user: str = "ada") -> bytes:
    """A chat completion as a client sends it."""
    body = json.dumps(
        {"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}Authorization: Bearer {mint(name=user)}\r\nContent-Type: application/json\r\n\r\n".encode() + body


async def connect(proxy: ProxyProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(proxy.base_url.rpartition(":")[2]))


async def ask(proxy: ProxyProcess, *, stream: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await connect(proxy)
    writer.write(request(stream=stream))
    return reader, writer


async def answer(proxy: ProxyProcess, *, stream: bool = True) -> bytes:
    """All bytes of an answer, to the end of its connection."""
    reader, writer = await ask(proxy, stream=stream)
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""
    finally:
        writer.close()
