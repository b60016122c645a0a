"""What the process holds while many streams are open, measured from outside."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.harness import ProxyProcess, mint, running_proxy

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b'data: {"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_STREAMS = 24
_PROMPT_BYTES = 4 * 1024 * 1024


def resident_kib(proxy: ProxyProcess) -> int:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


class BlockingProvider:
    """Reads each request whole, sends one event, and leaves the stream open until the other side closes it."""

    def __init__(self) -> None:
        self.open = 0
        self.idle = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(_HEAD + b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
        await reader.read()
        writer.close()
        self.open -= 1
        if not self.open:
            self.idle.set()


async def open_stream(port: int, body: bytes) -> asyncio.StreamWriter:
    """A stream whose first event has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Authorization: Bearer {mint()}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
    await asyncio.wait_for(reader.readuntil(b"\n\n"), 30)
    return writer


def test_a_prompt_is_let_go_when_the_provider_has_answered(tmp_path: Path) -> None:
    """24 open streams with prompts of 4 MiB: held, they would take 96 MiB."""
    prompt = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "x" * _PROMPT_BYTES}]}
    body = json.dumps(prompt).encode()

    async def measure(proxy: ProxyProcess, provider: BlockingProvider) -> int:
        port = int(proxy.base_url.rpartition(":")[2])
        writers = [await open_stream(port, body)]
        before = resident_kib(proxy)
        writers += [await open_stream(port, body) for _ in range(_STREAMS)]
        grown = resident_kib(proxy) - before
        for writer in writers:
            writer.close()
        await asyncio.wait_for(provider.idle.wait(), 30)
        return grown

    async def main() -> int:
        provider = BlockingProvider()
        async with await asyncio.start_server(provider.answer, "127.0.0.1", 0, limit=1024 * 1024) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with running_proxy(tmp_path, url, streams={"on_client_disconnect": "cancel"}) as proxy:
                return await measure(proxy, provider)

    assert asyncio.run(main()) < 24 * 1024
