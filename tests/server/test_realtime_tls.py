"""Sessions with TLS on both sides: back-pressure, order, and the ends of connections."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.server.realtime import websocket_url
from tests.server.websocket_provider import Speak, url_of
from tests.stress.async_proxy import async_proxy
from tests.stress.process_stats import resident_kib
from tests.upstream.authority import make_server_context, write_ca_file

MESSAGE = '{"type":"response.output_audio.delta","response_id":"resp_1","delta":"%s"}' % ("A" * (1 << 20))
EVENT = '{"type":"input_audio_buffer.append","audio":"%s"}'


@contextlib.asynccontextmanager
async def tls_proxy(speak: Speak, folder: Path) -> AsyncIterator[ProxyProcess]:
    """Run a server whose client port and provider speak TLS."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    with (folder / "server.pem").open("wb") as file:
        file.writelines(blob.bytes() for blob in certificate.cert_chain_pems)
    tls = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await speak(connection)

    async with serve(handle, "127.0.0.1", 0, ssl=make_server_context(), max_size=None, ping_interval=None) as server:
        url = url_of(server, "https")
        openai = {"base_url": url, "api_key": {"env": "TEST_OPENAI_KEY"}, "ca_file": write_ca_file(folder)}
        listen = {"host": "127.0.0.1", "port": 0, "tls": tls}
        async with (
            async_proxy(url, providers={"openai": openai}, listen=listen) as proxy,
            asyncio.timeout(TIMEOUT_S),
        ):
            yield proxy


def connect(proxy: ProxyProcess) -> websockets.connect:
    """Open a session over TLS; the client does not check the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {mint()}"}
    return websockets.connect(
        websocket_url(proxy), ssl=context, additional_headers=headers, max_size=None, max_queue=1, ping_interval=None
    )


def test_client_that_does_not_read_slows_the_provider_and_receives_everything(tmp_path: Path) -> None:
    megabytes, sent = 40, 0

    async def speak(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(megabytes):
            await connection.send(MESSAGE)
            sent += 1
        await connection.close(4000, "all")

    async def receive(socket: ClientConnection) -> int:
        count = 0
        with contextlib.suppress(websockets.ConnectionClosed):
            while await socket.recv() == MESSAGE:
                count += 1
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4000, "all")
        return count

    async def run() -> tuple[int, int, int]:
        async with tls_proxy(speak, tmp_path) as proxy:
            before = resident_kib(proxy)
            async with connect(proxy) as socket:
                held = -1
                while held != sent:  # until the buffers are full and the provider's count stays the same
                    held = sent
                    await asyncio.sleep(0.3)
                return held, resident_kib(proxy) - before, await receive(socket)

    held, growth_kib, received = asyncio.run(run())

    assert held < megabytes
    assert growth_kib < 24 * 1024
    assert received == megabytes


@pytest.mark.parametrize("size", [10, 100_000])
def test_frames_of_both_sides_arrive_in_their_order(size: int, tmp_path: Path) -> None:
    frames = [EVENT % (str(number % 10) * size) for number in range(100)]

    async def speak(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def run() -> list[str | bytes]:
        async with tls_proxy(speak, tmp_path) as proxy, connect(proxy) as socket:

            async def send_all() -> None:
                for frame in frames:
                    await socket.send(frame)

            sending = asyncio.ensure_future(send_all())
            received = [await socket.recv() for _ in frames]
            await sending
            return received

    assert asyncio.run(run()) == frames
