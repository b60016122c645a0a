"""The server behind nginx, with the default settings of nginx and with those of docs/operations.md."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.docs.pages import DOCS, fences
from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.server.chat import MESSAGE
from tests.server.raw_provider import END, EVENT, SSE, USAGE, chat_request, chunk, read_request, run_against

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


def documented_settings() -> str:
    (block,) = fences(DOCS / "operations.md", "nginx")
    return block


@contextlib.contextmanager
def nginx(folder: Path, proxy: ProxyProcess, settings: str) -> Iterator[int]:
    """Run nginx in front of `proxy`; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    temporary = "".join(f"{name}_temp_path {folder}/{name}; " for name in _TEMPORARY)
    server = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {proxy.base_url}; {settings} }} }}"
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} {server} }}\n"
    )
    running = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        yield port
    finally:
        running.terminate()
        running.wait(TIMEOUT_S)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to nginx, which may still be starting."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)


def test_stream_is_relayed_without_delay_with_the_documented_settings(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await asyncio.wait_for(send_rest.wait(), TIMEOUT_S)
        writer.write(chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> bytes:
        with nginx(tmp_path / "nginx", proxy, documented_settings()) as port:
            reader, writer = await connect(port)
            writer.write(chat_request())
            received = await asyncio.wait_for(reader.readuntil(b"word "), TIMEOUT_S)
            send_rest.set()
            received += await asyncio.wait_for(reader.read(), TIMEOUT_S)
            writer.close()
            return received

    send_rest = asyncio.Event()

    assert run_against(serve, tmp_path, act).endswith(b"data: [DONE]\n\n\r\n" + END)


def test_results_url_leads_to_nginx_with_the_documented_settings(tmp_path: Path) -> None:
    results = "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results"
    batch = f'{{"id":"msgbatch_1","type":"message_batch","processing_status":"in_progress","results_url":"{results}"}}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(batch)}\r\n\r\n"
        writer.write((head + batch).encode())
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[int, str]:
        with nginx(tmp_path / "nginx", proxy, documented_settings()) as port:
            _, writer = await connect(port)
            writer.close()
            body = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
            # A client cannot state another host or scheme.
            headers = {"x-api-key": mint(), "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                url = f"http://127.0.0.1:{port}/anthropic/v1/messages/batches"
                created = await client.post(url, json=body, headers=headers)
            return port, created.json()["results_url"]

    port, url = run_against(serve, tmp_path, act)

    assert url == f"http://127.0.0.1:{port}/anthropic/v1/messages/batches/msgbatch_1/results"


@pytest.mark.parametrize(
    "settings", [pytest.param("", id="default settings"), pytest.param(None, id="documented settings")]
)
def test_cut_stream_does_not_look_complete_behind_nginx(settings: str | None, tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await writer.drain()
        await asyncio.sleep(0.2)  # the head must be relayed before the response breaks

    async def act(proxy: ProxyProcess) -> bytes:
        with nginx(tmp_path / "nginx", proxy, documented_settings() if settings is None else settings) as port:
            reader, writer = await connect(port)
            writer.write(chat_request())
            try:
                return await asyncio.wait_for(reader.read(), TIMEOUT_S)
            except ConnectionResetError:
                return b""
            finally:
                writer.close()

    received = run_against(cut, tmp_path, act)

    # In the body: a request id at the end of the head may end with the same bytes.
    _, _, body = received.partition(b"\r\n\r\n")
    assert END not in body
