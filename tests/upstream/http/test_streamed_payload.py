"""A request body that is sent while it arrives, over both versions of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.kept_memory import measure_kept_bytes
from tests.upstream.authority import write_ca_file
from tests.upstream.http2_provider import Stream, run_http2_provider
from tests.upstream.requests import make_request, read_body, run_client
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamTimeout
from tornado_proxy.upstream.http.streamed_payload import KEPT_BYTES, StreamedPayload

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BODY = bytes(range(256)) * 4096
_TIMEOUT_S = 20


def make_payload(size: int = len(BODY), on_read: Callable[[], None] = lambda: None) -> StreamedPayload:
    return StreamedPayload(size, on_read)


@given(
    sizes=st.lists(st.integers(1, 40) | st.integers(1, KEPT_BYTES // 2), max_size=8),
    limits=st.lists(st.integers(1, KEPT_BYTES), min_size=1),
    rewound=st.integers(0, 3 * KEPT_BYTES),
)
def test_bytes_are_read_in_order_and_again_after_a_rewind(sizes: list[int], limits: list[int], rewound: int) -> None:
    body = bytes(range(251)) * (sum(sizes) // 251 + 1)
    body = body[: sum(sizes)]
    payload = make_payload(len(body))
    start = 0
    for size in sizes:
        payload.add(body[start : start + size])
        start += size
    payload.end()
    read = b""
    for limit in limits:
        read += payload.read(limit) or b""
    assert payload.unread_bytes == len(body) - len(read)

    can_rewind = payload.rewind(min(rewound, len(read)))
    if len(read) <= KEPT_BYTES:
        assert can_rewind
    read = read[: min(rewound, len(read))] if can_rewind else read
    while data := payload.read(100_000):
        read += data

    assert read == body
    assert not payload.is_withheld


@pytest.mark.parametrize("is_read_at_once", [True, False])
def test_body_that_arrives_byte_by_byte_takes_little_more_memory_than_its_bytes(is_read_at_once: bool) -> None:
    payload = make_payload()

    def add_bytes() -> None:
        for _ in range(30_000):
            payload.add(b"x")
            if is_read_at_once:
                payload.read(KEPT_BYTES)

    taken = measure_kept_bytes(add_bytes)

    assert payload.rewind(0)
    assert payload.unread_bytes == 30_000
    assert taken < 2 * 30_000  # an object for each byte would take 100 times as much


@pytest.mark.gen_test
async def test_body_is_sent_as_it_arrives() -> None:
    received = bytearray()
    changed = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(received) < len(BODY):
            received.extend(await reader.read(65536))
            changed.set()
        writer.write(OK)

    payload = make_payload()
    async with run_provider(respond) as url:
        with run_client() as upstream:
            exchange = upstream.start(replace(make_request(url), body=payload))
            for start in range(0, len(BODY), 300_000):
                payload.add(BODY[start : start + 300_000])
                while len(received) < min(start + 300_000, len(BODY)):
                    changed.clear()
                    await asyncio.wait_for(changed.wait(), _TIMEOUT_S)
            payload.end()
            head = await exchange.head()

    assert head.status == 200
    assert bytes(received) == BODY


@pytest.mark.gen_test
async def test_body_is_sent_as_it_arrives_over_http2(tmp_path_factory: pytest.TempPathFactory) -> None:
    ca = write_ca_file(tmp_path_factory.mktemp("authority"))
    streams: list[Stream] = []

    async def respond(stream: Stream) -> None:
        streams.append(stream)
        await stream.send_head()
        await stream.send(b"%d" % len(stream.body))
        stream.end()

    payload = make_payload()
    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            exchange = upstream.start(replace(make_request(provider.url, ca_file=ca), body=payload))
            for start in range(0, len(BODY), 300_000):
                payload.add(BODY[start : start + 300_000])
                async with asyncio.timeout(_TIMEOUT_S):
                    while payload.unread_bytes or not streams:  # noqa: ASYNC110  # libcurl tells no one
                        await asyncio.sleep(0.01)
            payload.end()
            answer = await read_body(exchange)

    assert answer == b"%d" % len(BODY)
    assert bytes(streams[0].body) == BODY


@pytest.mark.gen_test
async def test_upload_on_a_connection_that_is_just_closing_is_sent_again_while_all_of_it_is_kept() -> None:
    bodies: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(2))
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(1))

    payload = make_payload(2)
    async with run_provider(respond) as url:
        with run_client() as upstream:
            await read_body(upstream.start(make_request(url)))
            exchange = upstream.start(replace(make_request(url), body=payload))
            payload.add(b"[")
            async with asyncio.timeout(_TIMEOUT_S):
                while len(bodies) < 2:  # noqa: ASYNC110  # on the connection that closes then
                    await asyncio.sleep(0.01)
            payload.add(b"]")
            payload.end()
            assert await read_body(exchange) == b""

    assert bodies == [b"{}", b"[", b"[]"]


@pytest.mark.gen_test
async def test_provider_that_breaks_off_or_is_left_before_the_end_of_a_request_cannot_charge_it() -> None:
    ended = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        if not ended.is_set():
            await reader.read(1)
            ended.set()

    async with run_provider(respond) as url:
        with run_client() as upstream:
            payload = make_payload()
            exchange = upstream.start(replace(make_request(url), body=payload))
            payload.add(b"x")
            await asyncio.sleep(0.1)
            exchange.abort("the client left")
            await asyncio.wait_for(ended.wait(), _TIMEOUT_S)
            with pytest.raises(ExchangeAborted) as aborted:
                await exchange.head()
            payload = make_payload()
            exchange = upstream.start(replace(make_request(url), body=payload))
            payload.add(b"x" * (KEPT_BYTES + 1))
            with pytest.raises(UpstreamError) as broken:
                await exchange.head()

    assert not aborted.value.request_sent
    assert not broken.value.request_sent


@pytest.mark.gen_test
async def test_idle_timeout_does_not_run_while_the_client_is_slow_and_does_while_the_provider_is() -> None:
    release = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"a":
            await reader.readexactly(1)
            writer.write(OK)
        else:
            await release.wait()  # reads nothing more, so that the socket fills

    async with run_provider(respond) as url:
        with run_client() as upstream:
            slow = make_payload(2)
            exchange = upstream.start(replace(make_request(url, idle_s=0.1), body=slow))
            slow.add(b"a")
            stalled = make_payload(64 * len(BODY))
            other = upstream.start(replace(make_request(url, idle_s=0.1), body=stalled))
            for _ in range(64):
                stalled.add(b"b" * len(BODY))
            with pytest.raises(UpstreamTimeout):
                await other.head()  # the sweep for idle exchanges has also looked at the first one
            slow.add(b"a")
            slow.end()
            assert (await exchange.head()).status == 200
            assert stalled.unread_bytes == 0  # dropped
            release.set()


@pytest.mark.gen_test
async def test_provider_that_responds_early_and_takes_no_more_reaches_its_idle_timeout() -> None:
    release = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await release.wait()  # reads nothing more, so that the socket fills

    async with run_provider(respond) as url:
        with run_client() as upstream:
            payload = make_payload(64 * len(BODY))
            exchange = upstream.start(replace(make_request(url, idle_s=0.1), body=payload))
            for _ in range(32):
                payload.add(BODY)
            async with asyncio.timeout(_TIMEOUT_S):
                while not exchange.finished:  # noqa: ASYNC110  # nothing reads the response before the request is sent
                    await asyncio.sleep(0.01)
            assert (await exchange.head()).status == 200
            assert await exchange.read() == b"x"
            with pytest.raises(UpstreamTimeout):
                await exchange.read()
            release.set()

    assert payload.unread_bytes == 0


@pytest.mark.gen_test
async def test_provider_that_rejects_early_gets_no_more_and_one_that_accepts_early_gets_all() -> None:
    received: list[int] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"a":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            received.append(1 + len(await reader.readexactly(len(BODY) - 1)))
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            await writer.drain()

    async with run_provider(respond) as url:
        with run_client() as upstream:
            payload = make_payload()
            exchange = upstream.start(replace(make_request(url), body=payload))
            payload.add(b"a")
            assert (await exchange.head()).status == 200
            payload.add(BODY[1:])
            payload.end()
            assert await read_body(exchange) == b"x"

            payload = make_payload()
            exchange = upstream.start(replace(make_request(url), body=payload))
            payload.add(b"b")
            async with asyncio.timeout(_TIMEOUT_S):
                while True:  # until the payload drops its bytes; nothing awaits the head
                    payload.add(BODY)
                    if not payload.unread_bytes:
                        break
                    await asyncio.sleep(0.01)
            assert (await exchange.head()).status == 401
            assert await read_body(exchange) == b"no"

    assert received == [len(BODY)]
