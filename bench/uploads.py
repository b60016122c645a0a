"""Measure when a form reaches the provider, and the memory and CPU time that it takes in the server.

    python -m bench.uploads [--kind image|recording] [--mb 20] [--mb-per-s 12.5] [--requests 5]

A client sends a form with a file at a limited rate, or as fast as it can with `--mb-per-s 0`.  The figures are medians:
from the client's first byte to the provider's first byte of the body, and to the end of the response; the CPU time of
the server and its workers for a request.  Memory is the highest resident set of the server above that before; a
recording is beside it, in memory that no process has mapped while it arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import statistics
import tempfile
import time
import wave
from dataclasses import dataclass
from pathlib import Path

from bench.machine import list_process_tree, read_cpu_s
from tests.harness import ProxyProcess, mint, running_proxy

#: Bytes that the client writes at a time.
_WRITE_BYTES = 125_000

_USAGE = {"input_tokens": 20, "input_tokens_details": {"text_tokens": 20, "image_tokens": 0}, "output_tokens": 2}
_RESPONSES = {
    "image": json.dumps({"created": 1, "data": [{"b64_json": "AA=="}], "usage": _USAGE}).encode(),
    "recording": b"hello",
}
_PATHS = {"image": "/v1/images/edits", "recording": "/v1/audio/transcriptions"}
_FIELDS = {
    "image": {"model": "gpt-image-2", "prompt": "blue"},
    "recording": {"model": "whisper-1", "response_format": "text"},
}


@dataclass(slots=True)
class Provider:
    """Reads requests and responds; notes when the first byte of the last body came."""

    response: bytes
    first_byte_at: float = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until the proxy closes it."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                left = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                self.first_byte_at = 0.0
                while left:
                    left -= len(await reader.read(_WRITE_BYTES * 8))
                    self.first_byte_at = self.first_byte_at or time.perf_counter()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % len(self.response) + self.response)
        writer.close()


def make_form(kind: str, size: int) -> bytes:
    """Return a form with a file of `size` bytes, whose fields come first."""
    texts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in _FIELDS[kind].items()
    )
    name, content = ("image", os.urandom(size)) if kind == "image" else ("file", make_wav(size))
    file = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
    return f"{texts}{file}".encode() + content + b"\r\n--b--\r\n"


def make_wav(size: int) -> bytes:
    """Return noise of `size` bytes as a WAV file."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(os.urandom(size))
    return data.getvalue()


async def send(port: int, kind: str, form: bytes, bytes_per_s: float) -> float:
    """Send a form and read the response; return when the first byte was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {_PATHS[kind]} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(form)}\r\n"
    head += f"Authorization: Bearer {mint()}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    began = time.perf_counter()
    writer.write(head.encode())
    for start in range(0, len(form), _WRITE_BYTES):
        writer.write(form[start : start + _WRITE_BYTES])
        await writer.drain()
        if bytes_per_s:
            await asyncio.sleep(max(0.0, began + (start + _WRITE_BYTES) / bytes_per_s - time.perf_counter()))
    response = await reader.read()
    writer.close()
    if b" 200 " not in response[:20]:
        raise SystemExit(f"the server responded {response[:200]!r}")
    return began


def reset_peak(pid: int) -> None:
    """Set the highest resident set of a process to the present one (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def read_kib(pid: int, name: str) -> int:
    """Return a figure of /proc/PID/status in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


async def measure(proxy: ProxyProcess, provider: Provider, options: argparse.Namespace) -> None:
    """Send the requests one after the other and print the figures."""
    port, pid = int(proxy.base_url.rpartition(":")[2]), proxy.process.pid
    form = make_form(options.kind, int(options.mb * 1e6))
    await send(port, options.kind, form, 0)
    reset_peak(pid)
    rss, cpu_s = read_kib(pid, "VmRSS"), read_cpu_s(list_process_tree(pid))
    first_ms, whole_ms = [], []
    for _ in range(options.requests):
        began = await send(port, options.kind, form, options.mb_per_s * 1e6)
        whole_ms.append((time.perf_counter() - began) * 1000)
        first_ms.append((provider.first_byte_at - began) * 1000)
    cpu_ms = (read_cpu_s(list_process_tree(pid)) - cpu_s) * 1000 / options.requests
    print(f"first byte at the provider  {statistics.median(first_ms):8.1f} ms")
    print(f"response                    {statistics.median(whole_ms):8.1f} ms")
    print(f"CPU time                    {cpu_ms:8.1f} ms")
    print(f"memory of the server        {(read_kib(pid, 'VmHWM') - rss) / 1024:8.1f} MB")


async def run(options: argparse.Namespace) -> None:
    """Start a provider and a server in front of it, and measure."""
    provider = Provider(_RESPONSES[options.kind])
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=4 * 1024 * 1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        context = running_proxy(Path(folder), url)
        proxy = await asyncio.to_thread(context.__enter__)
        try:
            await measure(proxy, provider, options)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
            server.close()


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(_PATHS), default="image")
    parser.add_argument("--mb", type=float, default=20.0)
    parser.add_argument("--mb-per-s", type=float, default=12.5)
    parser.add_argument("--requests", type=int, default=5)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
