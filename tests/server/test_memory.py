"""Memory of the process while many streams are open."""

from __future__ import annotations

import asyncio
import json
import os
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


_IMAGE_BYTES = 20 * 1024 * 1024
_HEADERS = 'Content-Disposition: form-data; name="{}"'
_USAGE = {"input_tokens": 10, "output_tokens": 20, "input_tokens_details": {"text_tokens": 4, "image_tokens": 6}}
_RESPONSE = json.dumps({"created": 1, "data": [{"b64_json": ""}], "usage": _USAGE}).encode()


def make_upload() -> bytes:
    """Return a form with an image, and the model after it."""
    image = _HEADERS.format('image"; filename="a.png').encode() + b"\r\n\r\n" + os.urandom(_IMAGE_BYTES)
    fields = [f"{_HEADERS.format(name)}\r\n\r\n{value}".encode() for name, value in _FIELDS]
    return b"--b\r\n" + b"\r\n--b\r\n".join([image, *fields]) + b"\r\n--b--\r\n"


_FIELDS = (("model", "gpt-image-1"), ("prompt", "a cat"))


class ImageProvider:
    """A provider that responds with an image, and waits until the proxy closes."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_RESPONSE)}\r\n\r\n"
        writer.write(head.encode() + _RESPONSE)
        await reader.read()
        writer.close()
        self.closed.set()


async def upload(port: int, body: bytes) -> None:
    """Send a form and read its response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/images/edits HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\nAuthorization: Bearer {mint()}"
    writer.write(f"{head}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + body)
    status = await asyncio.wait_for(reader.readline(), TIMEOUT_S)
    assert status == b"HTTP/1.1 200 OK\r\n"
    writer.close()


def list_children(proxy: ProxyProcess) -> list[str]:
    """Return the ids of the server's processes."""
    tasks = Path(f"/proc/{proxy.process.pid}/task").glob("*/children")
    return [child for file in tasks for child in file.read_text().split()]


def test_upload_takes_memory_for_one_copy_of_its_file(tmp_path: Path) -> None:
    body = make_upload()

    async def main() -> tuple[int, list[str]]:
        provider = ImageProvider()
        async with await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=1024 * 1024) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with running_proxy(tmp_path, url) as proxy:
                before = resident_kib(proxy)
                await upload(int(proxy.base_url.rpartition(":")[2]), body)
                figures = resident_kib(proxy, "VmHWM") - before, list_children(proxy)
            await asyncio.wait_for(provider.closed.wait(), TIMEOUT_S)
            return figures

    growth_kib, children = asyncio.run(main())

    assert growth_kib < 1.25 * _IMAGE_BYTES / 1024
    assert children == []  # no body worker
