"""Providers whose response to a WebSocket upgrade is missing, late, malformed or endless."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterator

import pytest
import websockets
from websockets.asyncio.server import ServerConnection

from tests.harness import OPENAI_KEY, ProxyProcess, mint
from tests.server.raw_provider import ScriptedProvider, scripted_provider
from tests.server.realtime import connect_session, fetch_rejection, wait_closed, websocket_url
from tests.server.websocket_provider import run_against
from tests.stress.process_stats import resident_kib

MIB = 1024 * 1024

#: Never sent by a provider: the connection stays open without a response.
SILENCE = b"<silence>"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    with scripted_provider(tmp_path_factory.mktemp("upgrades"), streams={"connect_timeout_s": 1}) as scripted:
        yield scripted


def upgrade(*headers: str) -> bytes:
    """Return a 101 response with `headers`; `KEY` stands for the right value of Sec-WebSocket-Accept."""
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *headers, "", ""]).encode()


def accept_value(head: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept for a request head (RFC 6455 section 4.2.2)."""
    key = re.search(rb"Sec-Websocket-Key: (\S+)", head, re.IGNORECASE)
    assert key is not None
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key[1] + guid).digest())  # noqa: S324  # RFC 6455 names this hash


@pytest.mark.parametrize(
    ("response", "status", "code"),
    [
        pytest.param(SILENCE, 504, "upstream_timeout", id="no response"),
        pytest.param(b"HTTP/1.1 101 Switching", 502, "upstream_unreachable", id="half a head, then closed"),
        pytest.param(b"", 502, "upstream_unreachable", id="closed without a response"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", 502, "upstream_unreachable", id="status 2000"),
        pytest.param(
            b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            502,
            "upstream_unreachable",
            id="a length and chunks",
        ),
        pytest.param(
            upgrade("Upgrade: websocket", "Connection: Upgrade"), 502, "upstream_unreachable", id="no accept value"
        ),
        pytest.param(
            upgrade("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: AAAA"),
            502,
            "upstream_unreachable",
            id="a wrong accept value",
        ),
        pytest.param(upgrade("Connection: Upgrade"), 502, "upstream_unreachable", id="no upgrade"),
        pytest.param(
            upgrade(
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Accept: KEY",
                "Sec-WebSocket-Extensions: permessage-deflate",
            ),
            502,
            "upstream_unreachable",
            id="an extension that was not offered",
        ),
    ],
)
def test_upgrade_without_a_valid_response_is_an_error_with_a_code_and_no_traceback(
    response: bytes, status: int, code: str, provider: ScriptedProvider
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if response == SILENCE:
            await reader.read()
            return
        writer.write(response.replace(b"KEY", accept_value(head)))
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[websockets.Response, list[str]]:
        logged = len(proxy.log)
        headers = {"Authorization": f"Bearer {mint()}"}
        rejection = await fetch_rejection(websocket_url(proxy), additional_headers=headers)
        return rejection, [line for line in proxy.log[logged:] if "exception" in line or "Traceback" in line]

    rejection, tracebacks = provider.run(serve, act)

    assert rejection.status_code == status
    assert rejection.body is not None
    assert json.loads(rejection.body)["error"]["code"] == code
    assert tracebacks == []


@pytest.mark.parametrize("framing", [b"Content-Length: 104857600\r\n\r\n", b"Connection: close\r\n\r\n"])
def test_endless_body_of_a_rejected_upgrade_is_not_held(framing: bytes, provider: ScriptedProvider) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n" + framing)
        for _ in range(100):
            writer.write(OPENAI_KEY.encode() * (MIB // len(OPENAI_KEY)))
            await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[int, int]:
        before_kib = resident_kib(proxy)
        headers = {"Authorization": f"Bearer {mint()}"}
        rejection = await fetch_rejection(websocket_url(proxy), additional_headers=headers)
        return rejection.status_code, resident_kib(proxy) - before_kib

    status, grown_kib = provider.run(serve, act)

    assert status == 502
    assert grown_kib < 20 * 1024


@pytest.mark.parametrize("kind", [str, bytes], ids=["text", "binary"])
def test_provider_message_over_the_limit_closes_both_sides_with_1009(kind: type[str] | type[bytes]) -> None:
    provider_codes: list[int | None] = []

    async def speak(connection: ServerConnection) -> None:
        text = '{"type":"x","x":"%s"}' % ("A" * (MIB + 1))  # braces
        await connection.send(text if kind is str else text.encode())
        await connection.wait_closed()
        provider_codes.append(connection.close_code)

    async def act(proxy: ProxyProcess) -> tuple[int | None, str]:
        async with connect_session(proxy) as socket:
            return await wait_closed(socket)

    code, reason = run_against(speak, act, websockets={"max_message_mb": 1})

    assert code == 1009
    assert reason == "the provider's message is too large"
    assert provider_codes == [1009]
