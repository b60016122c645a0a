"""A provider that sends given bytes in given chunks and keeps the requests it received."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "fixtures" / "recorded"

#: Seconds between two chunks, so that each is a read of its own at the proxy.
_CHUNK_INTERVAL_S = 0.002


@dataclass(frozen=True)
class ProviderResponse:
    """A response; each of `chunks` is one write.  With `cut` the connection closes before the last chunk's end mark.

    `answers` is the method and target of the only request that gets it, None for any; others get a 404.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    chunks: tuple[bytes, ...] = (b"{}",)
    cut: bool = False
    reason: str = "Whatever"
    answers: tuple[str, str] | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


@dataclass
class ReceivedRequest:
    """A request as the provider received it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of a header, None if it is missing."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


_NOT_FOUND = ProviderResponse(404)


@dataclass
class ReplayProvider:
    """The provider's state: the response it sends next, and the requests it received."""

    url: str = ""
    response: ProviderResponse = field(default_factory=ProviderResponse)
    requests: list[ReceivedRequest] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request of a connection, then close it."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _read_request(reader)
            self.requests.append(request)
            is_answered = self.response.answers in (None, (request.method, request.target))
            await _write_response(writer, self.response if is_answered else _NOT_FOUND)
        writer.close()


@contextlib.contextmanager
def running_replay_provider() -> Iterator[ReplayProvider]:
    """Run a replaying provider in a thread of its own."""
    provider = ReplayProvider()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
        provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()
        await asyncio.sleep(0.05)  # Python 3.11 has no way to wait for the handlers of open connections

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    started.wait(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def load_exchange(name: str) -> dict[str, Any]:
    """Return a recorded exchange; tests/fixtures/recorded/SOURCE.md lists the sources."""
    exchange: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return exchange


def load_expected(name: str) -> dict[str, Any]:
    """Return the usage and cost of a recorded exchange, which independent libraries computed."""
    figures: dict[str, Any] = json.loads((RECORDED / "expected" / f"{name}.json").read_text())
    return figures


def recorded_response(name: str, *, chunk_bytes: int = 700) -> ProviderResponse:
    """Return the recorded response, its body cut into chunks; it answers no poll for the usage of another request."""
    exchange = load_exchange(name)
    request, response = exchange["request"], exchange["response"]
    body = response["body_text"].encode()
    headers = tuple((key, value) for key, value in response["headers"].items() if key != "transfer-encoding")
    chunks = tuple(body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes))
    return ProviderResponse(response["status"], headers, chunks, answers=(request["method"], request["path"]))


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.strip().split("\r\n")
    method, target, _ = request_line.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return ReceivedRequest(method, target, headers, await reader.readexactly(length))


async def _write_response(writer: asyncio.StreamWriter, response: ProviderResponse) -> None:
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in response.headers)]
    lines += ["Transfer-Encoding: chunked", "Connection: close"]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    for chunk in response.chunks:
        writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await writer.drain()
        await asyncio.sleep(_CHUNK_INTERVAL_S)
    if not response.cut:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
