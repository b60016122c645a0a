"""Requests and frames that arrive slowly or at the same time: their number and their bytes are limited."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator

import pytest
from websockets.asyncio.server import ServerConnection

from tests.harness import TIMEOUT_S, ProxyProcess, mint, mint_for_other_project
from tests.server import raw_provider
from tests.server.raw_provider import END, EVENT, SSE, USAGE, chunk, read_request
from tests.server.websocket_provider import ScriptedSessions, scripted_sessions

MIB = 1024 * 1024

LIMITS = {"max_streams": 5, "max_streams_per_project": 3, "max_arriving_mb": 5, "max_arriving_mb_per_caller": 2}

UPGRADE = (
    "GET /openai/v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer "
)

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[raw_provider.ScriptedProvider]:
    with raw_provider.scripted_provider(tmp_path_factory.mktemp("proxy"), limits=LIMITS) as scripted:
        yield scripted


async def send_head(proxy: ProxyProcess, token: str, length: int, sent: bytes = b"") -> Opened:
    """Send the head of a chat completion request with a body of `length`, and its first bytes."""
    reader, writer = await raw_provider.connect(proxy)
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\r\n".encode()
    )
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def read_response(opened: Opened) -> tuple[int, bytes]:
    """Return the status of the response, and all its bytes."""
    data = await asyncio.wait_for(opened[0].read(), TIMEOUT_S)
    opened[1].close()
    return int(data.split(b" ", 2)[1]), data


async def respond_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond after all clients have sent their request."""
    await read_request(reader)
    await asyncio.sleep(1)
    writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
    await writer.drain()


def test_requests_whose_bodies_end_together_do_not_exceed_the_limit(
    provider: raw_provider.ScriptedProvider,
) -> None:
    body = raw_provider.chat_request().partition(b"\r\n\r\n")[2]

    async def act(proxy: ProxyProcess) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        ours = [await send_head(proxy, mint(name=f"user{number}"), len(body)) for number in range(6)]
        await asyncio.sleep(0.2)
        others = [await send_head(proxy, mint_for_other_project(), len(body)) for _ in range(4)]
        await asyncio.sleep(0.2)
        for _, writer in (*ours, *others):
            writer.write(body)
        return (
            list(await asyncio.gather(*(read_response(opened) for opened in ours))),
            list(await asyncio.gather(*(read_response(opened) for opened in others))),
        )

    ours, others = provider.run(respond_slowly, act)

    assert sorted(status for status, _ in ours) == [200, 200, 200, 429, 429, 429]
    assert sorted(status for status, _ in others) == [200, 200, 503, 503]
    refused = next(data for status, data in ours if status == 429)
    assert b"Retry-After: 1" in refused
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "rate_limited"


def test_bodies_that_still_arrive_are_limited_for_each_caller_and_over_all(
    provider: raw_provider.ScriptedProvider,
) -> None:
    async def act(proxy: ProxyProcess) -> list[int]:
        first = await send_head(proxy, mint(name="ada"), 4 * MIB, b" " * (MIB + MIB // 2))
        await raw_provider.wait_for_metric(proxy, "llm_proxy_arriving_bytes 1.572864e+06")
        second = await send_head(proxy, mint(name="ada"), 4 * MIB, b" " * MIB)
        second[1].write(b" " * (3 * MIB))
        statuses = [(await read_response(second))[0]]
        other = await send_head(proxy, mint(name="bob"), 4 * MIB, b" " * (MIB + MIB // 2))
        more = await send_head(proxy, mint_for_other_project(), 4 * MIB, b" " * (MIB + MIB // 2))
        await raw_provider.wait_for_metric(proxy, "llm_proxy_arriving_bytes 4.718592e+06")
        last = await send_head(proxy, mint_for_other_project("mallory"), MIB, b" " * MIB)
        statuses.append((await read_response(last))[0])
        for _, writer in (first, other, more):
            writer.close()
        await raw_provider.wait_for_metric(proxy, "llm_proxy_arriving_bytes 0.0")
        return statuses

    assert provider.run(respond_slowly, act) == [429, 503]


#: The end of a streamed response.
LAST_CHUNK = b"[DONE]\n\n\r\n0\r\n\r\n"
LARGE_BODY = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"%b"}]}' % (
    b"".join(b"%07d " % number for number in range(128 * 1024))
)


async def send_in_pieces(writer: asyncio.StreamWriter, data: bytes, piece_bytes: int) -> None:
    """Send `data`; each piece leaves in a packet of its own, as far as the kernel lets it."""
    for at in range(0, len(data), piece_bytes):
        writer.write(data[at : at + piece_bytes])
        await writer.drain()


def make_large_request(user: str) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: {len(LARGE_BODY)}\r\n"
    return (
        f"{head}Authorization: Bearer {mint(name=user)}\r\nContent-Type: application/json\r\n\r\n".encode() + LARGE_BODY
    )


def test_large_bodies_on_one_connection_reach_the_provider_unchanged_but_for_the_splice(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received: list[bytes] = []
    requests = b"".join([make_large_request("ada"), raw_provider.chat_request(connection="keep-alive")] * 2)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_request(reader))
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> list[bytes]:
        reader, writer = await raw_provider.connect(proxy)
        sending = asyncio.ensure_future(send_in_pieces(writer, requests, 99_991))
        responses = [await asyncio.wait_for(reader.readuntil(LAST_CHUNK), TIMEOUT_S) for _ in range(4)]
        await sending
        writer.close()
        return [response.partition(b"\r\n")[0] for response in responses]

    assert provider.run(respond, act) == [b"HTTP/1.1 200 OK"] * 4
    spliced = LARGE_BODY.replace(b"{", b'{"stream_options":{"include_usage":true},', 1)
    assert [body == spliced for body in received] == [True, False, True, False]


def test_client_that_leaves_in_the_middle_of_a_large_body_costs_nothing(
    provider: raw_provider.ScriptedProvider,
) -> None:
    received: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_request(reader))
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> int:
        request = make_large_request("leaver")
        for _ in range(3):  # more than may arrive at once
            _, writer = await raw_provider.connect(proxy)
            await send_in_pieces(writer, request[: len(request) - 1], 99_991)
            await raw_provider.wait_for_metric(proxy, f"llm_proxy_arriving_bytes {len(LARGE_BODY) - 1:.6e}")
            writer.close()
            await writer.wait_closed()
            await raw_provider.wait_for_metric(proxy, "llm_proxy_arriving_bytes 0.0")
        opened = await raw_provider.connect(proxy)
        await send_in_pieces(opened[1], request.replace(b"Host: h", b"Host: h\r\nConnection: close", 1), 99_991)
        return (await read_response(opened))[0]

    assert provider.run(respond, act) == 200
    assert len(received) == 1


@pytest.fixture(scope="module")
def sessions() -> Iterator[ScriptedSessions]:
    with scripted_sessions(limits=LIMITS) as running:
        yield running


def frame(data: bytes, *, length: int | None = None, fin: bool = True, masked: bool = True) -> bytes:
    """Return a text frame; `length` may state more than `data` has."""
    head = bytes([(0x80 if fin else 0) | 1, (0x80 if masked else 0) | 127])
    return head + struct.pack("!Q", len(data) if length is None else length) + (b"\0" * 4 if masked else b"") + data


async def open_session(proxy: ProxyProcess, token: str) -> tuple[bytes, Opened]:
    """Send a handshake; return the response head and the connection."""
    reader, writer = await raw_provider.connect(proxy)
    writer.write((UPGRADE + token + "\r\n\r\n").encode())
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT_S), (reader, writer)


async def read_close_frame(opened: Opened) -> tuple[int, str]:
    """Return the code and the reason of the close frame that the server sends."""
    data = await asyncio.wait_for(opened[0].read(), TIMEOUT_S)
    opened[1].close()
    assert data[0] == 0x88, data
    return struct.unpack("!H", data[2:4])[0], data[4:].decode()


async def answer_close_frame(opened: Opened) -> None:
    """Receive the close frame of a session that the provider has closed, and answer it, as a client does."""
    head = await asyncio.wait_for(opened[0].readexactly(2), TIMEOUT_S)
    assert head[0] == 0x88, head
    code = await opened[0].readexactly(head[1])
    opened[1].write(bytes([0x88, 0x80 | len(code)]) + b"\0" * 4 + code)
    assert await asyncio.wait_for(opened[0].read(), TIMEOUT_S) == b""
    opened[1].close()


async def wait_for_close(connection: ServerConnection) -> None:
    await connection.wait_closed()


def test_handshakes_that_run_together_do_not_exceed_the_limit(sessions: ScriptedSessions) -> None:
    async def act(proxy: ProxyProcess) -> list[bytes]:
        opened = await asyncio.gather(*(open_session(proxy, mint(name=f"user{number}")) for number in range(6)))
        for _, (_, writer) in opened:
            writer.close()
        await raw_provider.wait_for_metric(proxy, "llm_proxy_requests_in_flight 0.0")
        return [head.split(b" ", 2)[1] for head, _ in opened]

    assert sorted(sessions.run(wait_for_close, act)) == [b"101"] * 3 + [b"429"] * 3


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frame(b"x" * (2 * MIB + 1), length=3 * MIB), id="one frame"),
        pytest.param(
            frame(b"x" * 60_000, fin=False) + frame(b"x" * 60_000, fin=False).replace(b"\x01", b"\0", 1) * 36,
            id="many small frames",
        ),
    ],
)
def test_message_that_does_not_end_is_limited_as_a_body_is(sent: bytes, sessions: ScriptedSessions) -> None:
    async def act(proxy: ProxyProcess) -> tuple[int, str]:
        _, opened = await open_session(proxy, mint())
        opened[1].write(sent)
        closed = await read_close_frame(opened)
        await raw_provider.wait_for_metric(proxy, "llm_proxy_arriving_bytes 0.0")
        return closed

    code, reason = sessions.run(wait_for_close, act)

    assert code == 1013
    assert reason.startswith("your requests that still arrive have 2 MiB (limits.max_arriving_mb_per_caller)")


@pytest.mark.parametrize("fin", [True, False])
def test_unmasked_frame_closes_the_session(fin: bool, sessions: ScriptedSessions) -> None:
    async def act(proxy: ProxyProcess) -> tuple[int, str]:
        _, opened = await open_session(proxy, mint())
        opened[1].write(frame(b'{"type":"response.create"}', fin=fin, masked=False))
        return await read_close_frame(opened)

    assert sessions.run(wait_for_close, act) == (1002, "client frames must be masked")


@pytest.mark.parametrize(
    ("sent", "closed"),
    [
        pytest.param(b"\xc1\x80\0\0\0\0", (1002, "a frame of an extension that was not agreed to"), id="reserved bit"),
        pytest.param(b"\x83\x80\0\0\0\0", (1002, "a frame with an unknown opcode"), id="unknown opcode"),
        pytest.param(b"\x80\x80\0\0\0\0", (1002, "frames of a message out of order"), id="no first part"),
        pytest.param(b"\x81\x81\0\0\0\0\xff", (1007, "text that is not valid UTF-8"), id="no UTF-8"),
    ],
)
def test_faulty_frame_closes_the_session_with_its_fault(
    sent: bytes, closed: tuple[int, str], sessions: ScriptedSessions
) -> None:
    async def act(proxy: ProxyProcess) -> tuple[int, str]:
        _, opened = await open_session(proxy, mint())
        opened[1].write(sent)
        return await read_close_frame(opened)

    assert sessions.run(wait_for_close, act) == closed


def test_frames_that_arrive_byte_by_byte_or_together_are_relayed_in_their_order(sessions: ScriptedSessions) -> None:
    received: list[str | bytes] = []

    async def speak(connection: ServerConnection) -> None:
        received.extend([await connection.recv() for _ in range(602)])
        await connection.close()

    events = [json.dumps({"type": "input_audio_buffer.append", "audio": f"{number}"}) for number in range(602)]
    frames = [frame(event.encode()) for event in events]

    async def act(proxy: ProxyProcess) -> None:
        _, opened = await open_session(proxy, mint())
        for byte in b"".join(frames[:2]):
            opened[1].write(bytes([byte]))
            await asyncio.sleep(0.001)
        opened[1].write(b"".join(frames[2:]))
        await answer_close_frame(opened)

    sessions.run(speak, act)

    assert received == events


def test_large_message_in_parts_is_relayed(sessions: ScriptedSessions) -> None:
    received: list[str | bytes] = []

    async def speak(connection: ServerConnection) -> None:
        received.append(await connection.recv())
        await connection.close()

    event = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 200_000}).encode()
    parts = [event[at : at + 90_000] for at in range(0, len(event), 90_000)]

    async def act(proxy: ProxyProcess) -> None:
        _, opened = await open_session(proxy, mint())
        for number, part in enumerate(parts):
            sent = frame(part, fin=number == len(parts) - 1)
            opened[1].write(sent if number == 0 else bytes([sent[0] & 0x80]) + sent[1:])
        await answer_close_frame(opened)

    sessions.run(speak, act)

    assert received == [event.decode()]
