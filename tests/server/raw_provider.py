"""A provider on a plain socket that a test scripts byte by byte, and clients on plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
EVENT = b'data: {"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
USAGE = (
    b'data: {"id":"c1","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\ndata: [DONE]\n\n'
)
END = b"0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Act = Callable[[ProxyProcess], Coroutine[Any, Any, Any]]


def chunk(data: bytes) -> bytes:
    """Return `data` as a chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def is_complete(response: bytes) -> bool:
    """Return True if the body has its last chunk, or the length that its head states."""
    head, _, body = response.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return body.endswith(END) if length is None else len(body) == int(length[1])


def request_id_of(response: bytes) -> str:
    """Return the request id in the head of a response."""
    found = re.search(rb"\r\nllm-proxy-request-id: (\S+)", response, re.IGNORECASE)
    assert found is not None, response[:1000]
    return found[1].decode()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next request, which states its Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


class ScriptedProvider:
    """A provider that each test scripts, and one server in front of it that they share.

    Provider and clients run on one event loop, which runs only within run(): a response that a test leaves unfinished
    continues in the next one.
    """

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._serve: Serve | None = None
        self._proxy: ProxyProcess | None = None

    def run(self, serve: Serve, act: Act) -> Any:
        """Return the result of `act`; it runs beside the server and a provider that is `serve`.

        Args:
            serve: Called with each connection that the proxy opens; the connection closes when it returns.
            act: The client's side of the test.
        """
        assert self._proxy is not None
        self._serve = serve
        return self._runner.run(act(self._proxy))

    @contextlib.contextmanager
    def running(self, folder: Path, **config: Any) -> Iterator[None]:
        """Start the provider and the server; stop the server while the provider still responds."""
        server = self._runner.run(asyncio.start_server(self._handle, "127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        context = running_proxy(folder, url, **config)
        self._proxy = self._runner.run(asyncio.to_thread(context.__enter__))
        try:
            yield
        finally:
            self._runner.run(asyncio.to_thread(context.__exit__, None, None, None))
            server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._serve is not None
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@contextlib.contextmanager
def scripted_provider(folder: Path, **config: Any) -> Iterator[ScriptedProvider]:
    """Run a server whose provider each test scripts.  `config` are top-level members of its configuration."""
    with asyncio.Runner() as runner:
        provider = ScriptedProvider(runner)
        with provider.running(folder, **config):
            yield provider


def run_against(serve: Serve, folder: Path, act: Act, **config: Any) -> Any:
    """Return the result of `act`, with a server and a provider that serve this test alone."""
    with scripted_provider(folder, **config) as provider:
        return provider.run(serve, act)


def chat_request(*, stream: bool = True, connection: str = "close", user: str = "ada") -> bytes:
    """Return the bytes of a chat completion request."""
    body = json.dumps(
        {"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}Authorization: Bearer {mint(name=user)}\r\nContent-Type: application/json\r\n\r\n".encode() + body


async def connect(proxy: ProxyProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the client port."""
    return await asyncio.open_connection("127.0.0.1", int(proxy.base_url.rpartition(":")[2]))


async def open_chat(proxy: ProxyProcess, *, stream: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send a chat completion request on it."""
    reader, writer = await connect(proxy)
    writer.write(chat_request(stream=stream))
    return reader, writer


async def fetch_chat(proxy: ProxyProcess, *, stream: bool = True) -> bytes:
    """Return all bytes of the response to a chat completion request; nothing if the connection is reset."""
    reader, writer = await open_chat(proxy, stream=stream)
    try:
        return await asyncio.wait_for(reader.read(), TIMEOUT_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def stop_reading(reader: asyncio.StreamReader) -> None:
    """Read nothing more, so that the kernel's buffers fill; asyncio has no public way to do so."""
    reader._transport.pause_reading()  # type: ignore[attr-defined]


def continue_reading(reader: asyncio.StreamReader) -> None:
    """Undo stop_reading()."""
    reader._transport.resume_reading()  # type: ignore[attr-defined]


async def wait_for_metric(proxy: ProxyProcess, line: str) -> None:
    """Wait until /metrics has `line`."""
    async with asyncio.timeout(TIMEOUT_S):
        while line not in (await asyncio.to_thread(proxy.fetch_admin, "/metrics"))[1]:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)
