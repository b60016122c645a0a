"""The memory that open streams use, measured on a separate process that holds them."""

from __future__ import annotations

import subprocess
import sys

import pytest

STREAMS = 100

#: Opens streams with prompts of 20 KB after a prompt of 8 MB was sent and freed; prints the growth of memory in KB.
PROGRAM = """
import asyncio
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest

HEAD = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1\\r\\n.\\r\\n"
release = asyncio.Event()

async def respond(reader, writer):
    while len(await reader.read(65536)) == 65536:
        pass
    writer.write(HEAD)
    await release.wait()

def read_resident_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

async def open_stream(client, url, size):
    request = UpstreamRequest("POST", url, (), (), Payload(bytes(size)), 5.0, 30.0)
    exchange = client.start(request)
    await exchange.read()
    return exchange

async def main():
    client = UpstreamClient()
    async with run_provider(respond) as url:
        (await open_stream(client, url, 8 << 20)).abort("the large prompt has been sent")
        before = read_resident_kb()
        streams = [await open_stream(client, url, 20_000) for _ in range(int({streams}))]
        print(read_resident_kb() - before)
        for stream in streams:
            stream.abort("memory has been measured")
        release.set()
    client.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stream_uses_memory_for_its_prompt_and_not_for_a_whole_send_buffer() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{streams}", str(STREAMS))],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert int(completed.stdout) < STREAMS * 100, "a send buffer alone has 256 KB"
