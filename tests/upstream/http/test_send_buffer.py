"""What open streams cost in memory, seen from outside: a process of its own holds them."""

from __future__ import annotations

import subprocess
import sys

import pytest

STREAMS = 100

#: Opens streams with prompts of 20 KB after a prompt of 8 MB has come and gone; prints the growth in KB.
HOLD = """
import asyncio
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.request import Payload, UpstreamRequest

HEAD = b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1\\r\\n.\\r\\n"
silent = asyncio.Event()

async def answer(reader, writer):
    while len(await reader.read(65536)) == 65536:
        pass
    writer.write(HEAD)
    await silent.wait()

def resident_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

async def open_stream(client, url, size):
    request = UpstreamRequest("POST", url, (), (), Payload(bytes(size)), 5.0, 30.0)
    exchange = client.start(request)
    await exchange.read()
    return exchange

async def main():
    client = UpstreamClient(force_instance=True)
    async with run_provider(answer) as url:
        (await open_stream(client, url, 8 << 20)).abort("it was the large one")
        before = resident_kb()
        streams = [await open_stream(client, url, 20_000) for _ in range(int({streams}))]
        print(resident_kb() - before)
        for stream in streams:
            stream.abort("seen")
        silent.set()
    client.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stream_holds_the_pages_of_its_prompt_and_not_a_whole_send_buffer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLD.replace("{streams}", str(STREAMS))],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert int(done.stdout) < STREAMS * 100, "a send buffer alone has 256 KB"
