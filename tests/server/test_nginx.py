"""The server behind nginx, as it comes and as docs/operations.md sets it up."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, fences
from tests.harness import ProxyProcess
from tests.server.raw_provider import END, EVENT, SSE, USAGE, chat_request, chunk, read_request, run_against

#: Seconds; far above what anything here takes.
_TIMEOUT_S = 20

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


def settings_on_the_page() -> str:
    (block,) = fences(DOCS / "operations.md", "nginx")
    return block


@contextlib.contextmanager
def nginx(folder: Path, proxy: ProxyProcess, settings: str) -> Iterator[int]:
    """Run it in front of `proxy`; gives its port."""
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
        running.wait(_TIMEOUT_S)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to nginx, which may still be starting."""
    async with asyncio.timeout(_TIMEOUT_S):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)


def test_with_the_settings_on_the_page_a_stream_comes_as_it_is_sent(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await asyncio.wait_for(go_on.wait(), _TIMEOUT_S)
        writer.write(chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> bytes:
        with nginx(tmp_path / "nginx", proxy, settings_on_the_page()) as port:
            reader, writer = await connect(port)
            writer.write(chat_request())
            seen = await asyncio.wait_for(reader.readuntil(b"word "), _TIMEOUT_S)
            go_on.set()
            seen += await asyncio.wait_for(reader.read(), _TIMEOUT_S)
            writer.close()
            return seen

    go_on = asyncio.Event()

    assert run_against(serve, tmp_path, act).endswith(b"data: [DONE]\n\n\r\n" + END)


@pytest.mark.parametrize(
    "settings", [pytest.param("", id="its defaults"), pytest.param(None, id="the settings on the page")]
)
def test_a_cut_stream_does_not_look_complete_behind_it(settings: str | None, tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await writer.drain()
        await asyncio.sleep(0.2)  # the head is on its way when the answer breaks

    async def act(proxy: ProxyProcess) -> bytes:
        with nginx(tmp_path / "nginx", proxy, settings_on_the_page() if settings is None else settings) as port:
            reader, writer = await connect(port)
            writer.write(chat_request())
            try:
                return await asyncio.wait_for(reader.read(), _TIMEOUT_S)
            except ConnectionResetError:
                return b""
            finally:
                writer.close()

    seen = run_against(cut, tmp_path, act)

    assert END not in seen
