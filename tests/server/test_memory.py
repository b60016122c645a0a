"""Memory of the process while many streams are open."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.server.raw_provider import EVENT, SSE, chunk, read_request
from tests.stress.process_stats import resident_kib

_STREAMS = 24

#: Large compared with what the allocator keeps, so that one measurement decides.
_PROMPT_BYTES = 4 * 1024 * 1024


class OpenStreams:
    """A provider that sends one event in response to each request, and keeps the stream open until the proxy closes."""

    def __init__(self) -> None:
        self.open = 0
        self.idle = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await reader.read()
        writer.close()
        self.open -= 1
        if not self.open:
            self.idle.set()


async def open_stream(port: int, body: bytes) -> asyncio.StreamWriter:
    """Send a request; return when the first event of its response has arrived."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Authorization: Bearer {mint()}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
    await asyncio.wait_for(reader.readuntil(b"\n\n"), TIMEOUT_S)
    return writer


def test_prompt_is_freed_when_the_provider_responds(tmp_path: Path) -> None:
    """24 open streams have prompts of 4 MiB; if the server kept them, they would take 96 MiB."""
    prompt = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "x" * _PROMPT_BYTES}]}
    body = json.dumps(prompt).encode()

    async def measure(proxy: ProxyProcess, provider: OpenStreams) -> int:
        port = int(proxy.base_url.rpartition(":")[2])
        writers = [await open_stream(port, body)]
        before = resident_kib(proxy)
        writers += [await open_stream(port, body) for _ in range(_STREAMS)]
        growth = resident_kib(proxy) - before
        for writer in writers:
            writer.close()
        await asyncio.wait_for(provider.idle.wait(), TIMEOUT_S)
        return growth

    async def main() -> int:
        provider = OpenStreams()
        async with await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=1024 * 1024) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with running_proxy(tmp_path, url, streams={"on_client_disconnect": "cancel"}) as proxy:
                return await measure(proxy, provider)

    assert asyncio.run(main()) < 24 * 1024
