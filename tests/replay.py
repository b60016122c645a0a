"""A provider that answers with given bytes, in given pieces, and remembers what it was asked."""

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


@dataclass(frozen=True)
class Reply:
    """An answer; `pieces` leave as one write each.  `cut`: the connection closes before the body's proper end."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    pieces: tuple[bytes, ...] = (b"{}",)
    cut: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@dataclass
class Asked:
    """One request as it reached the provider."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Replay:
    """The provider's state: what it answers next, and what it was asked."""

    url: str = ""
    reply: Reply = field(default_factory=Reply)
    asked: list[Asked] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.asked.append(await _read_request(reader))
            await _write_reply(writer, self.reply)
        writer.close()


@contextlib.contextmanager
def replaying() -> Iterator[Replay]:
    """Run a replaying provider in a thread of its own."""
    replay = Replay()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(replay.serve, "127.0.0.1", 0)
        replay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    started.wait(10)
    try:
        yield replay
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def recorded(name: str) -> dict[str, Any]:
    """One recorded exchange (tests/fixtures/recorded/SOURCE.md says where it comes from)."""
    exchange: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return exchange


def expected(name: str) -> dict[str, Any]:
    """What the recorded exchange must cost, computed by independent means."""
    figures: dict[str, Any] = json.loads((RECORDED / "expected" / f"{name}.json").read_text())
    return figures


def recorded_reply(name: str, *, piece_bytes: int = 700) -> Reply:
    """The recorded answer, its body cut into pieces."""
    response = recorded(name)["response"]
    body = response["body_text"].encode()
    headers = tuple((key, value) for key, value in response["headers"].items() if key != "transfer-encoding")
    pieces = tuple(body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes))
    return Reply(response["status"], headers, pieces)


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Asked(method, target, headers, await reader.readexactly(length))


async def _write_reply(writer: asyncio.StreamWriter, reply: Reply) -> None:
    lines = [f"HTTP/1.1 {reply.status} Whatever", *(f"{name}: {value}" for name, value in reply.headers)]
    lines += ["Transfer-Encoding: chunked", "Connection: close"]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    for piece in reply.pieces:
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0.002)
    if not reply.cut:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
