"""Exchanges over HTTP/2, where many streams share a connection (RFC 9113)."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections.abc import Callable

import pytest

from tests.upstream.authority import write_ca_file
from tests.upstream.http2_provider import Provider, Stream, run_http2_provider
from tests.upstream.requests import make_request, read_body, run_client
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import HIGH_WATER_BYTES

#: Limit for events that take milliseconds.
_TIMEOUT_S = 20


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_ca_file(tmp_path_factory.mktemp("authority"))


async def wait_until(condition: Callable[[], bool]) -> None:
    """Poll `condition` until it is true."""
    async with asyncio.timeout(_TIMEOUT_S):
        while not condition():  # noqa: ASYNC110  # the provider has no event for every state
            await asyncio.sleep(0.005)


async def warm_up(upstream: UpstreamClient, provider: Provider, ca: str) -> None:
    """Complete one request, so that a connection is open."""
    assert await read_body(upstream.start(make_request(f"{provider.url}/warm", ca_file=ca))) == b"warm"


@functools.lru_cache
def make_body(size: int) -> bytes:
    """Return `size` bytes that differ by position and by `size`."""
    return b"".join(hashlib.sha256(b"%d %d" % (size, index)).digest() for index in range(size // 32 + 1))[:size]


@pytest.mark.gen_test(timeout=30)
async def test_a_hundred_concurrent_streams_share_the_open_connection(ca: str) -> None:
    release = asyncio.Event()

    async def respond(stream: Stream) -> None:
        await stream.send_head()
        if stream.path == "/warm":
            await stream.send(b"warm")
        else:
            await release.wait()
            await stream.send(make_body(int(stream.path[1:])))
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            await warm_up(upstream, provider, ca)
            sizes = [20_000 + number for number in range(100)]
            exchanges = [upstream.start(make_request(f"{provider.url}/{size}", ca_file=ca)) for size in sizes]
            await wait_until(lambda: len(provider.streams) == 101)
            heads = await asyncio.gather(*(exchange.head() for exchange in exchanges))
            peaks = [connection.peak_streams for connection in provider.connections]
            release.set()
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in exchanges))

    assert peaks == [100]
    assert {(head.status, head.reason) for head in heads} == {(200, "")}  # HTTP/2 has no reason phrase
    assert bodies == [make_body(size) for size in sizes]


@pytest.mark.gen_test(timeout=30)
async def test_stream_over_the_limit_of_a_connection_does_not_wait_for_another_to_end(ca: str) -> None:
    release = asyncio.Event()

    async def respond(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(b"warm")
        if stream.path != "/warm":
            await release.wait()
        stream.end()

    async with run_http2_provider(respond, max_streams=8) as provider:
        with run_client() as upstream:
            await warm_up(upstream, provider, ca)
            for _ in range(2):
                exchanges = [upstream.start(make_request(f"{provider.url}/held", ca_file=ca)) for _ in range(40)]
                async with asyncio.timeout(_TIMEOUT_S):
                    first = [await exchange.read() for exchange in exchanges]
                release.set()
                await asyncio.gather(*(read_body(exchange) for exchange in exchanges))
                release.clear()
                assert first == [b"warm"] * 40
            peaks = [connection.peak_streams for connection in provider.connections]

    assert max(peaks) == 8
    # 1 connection of warm_up() and at most 32 more for the streams over its limit; the second round needs no new one.
    assert len(peaks) <= 33


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize("size", [0, 1, 16_384, 65_536, 300_000, 3_000_000])
async def test_body_of_any_size_is_sent_and_received_unchanged(size: int, ca: str) -> None:
    async def echo(stream: Stream) -> None:
        await stream.send_head(200, ("content-length", str(size)))
        await stream.send(bytes(stream.body))
        stream.end()

    async with run_http2_provider(echo) as provider:
        with run_client() as upstream:
            exchange = upstream.start(make_request(provider.url, ca_file=ca, body=make_body(size)))

            assert await read_body(exchange) == make_body(size)
            assert exchange.complete


@pytest.mark.gen_test(timeout=30)
async def test_end_of_a_body_with_a_length_is_not_delayed(ca: str) -> None:
    """libcurl's speed limit, which keeps the windows small, would delay the last hundredth of each body by 0.2 s."""

    async def respond(stream: Stream) -> None:
        await stream.send_head(200, ("content-length", "20000"))
        await stream.send(make_body(20_000))
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            started_at = time.monotonic()
            for _ in range(100):
                await read_body(upstream.start(make_request(provider.url, ca_file=ca)))

            assert time.monotonic() - started_at < 10  # of 20 s with the delay


@pytest.mark.gen_test(timeout=30)
async def test_unread_streams_hold_back_their_provider_and_no_other_stream(ca: str) -> None:
    size = 2 * 1024 * 1024

    async def respond(stream: Stream) -> None:
        await stream.send_head()
        if stream.path == "/stalled":
            await stream.send(make_body(size))
        else:
            for _ in range(200):
                await stream.send(b"tick")
                await asyncio.sleep(0.01)
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            flowing = upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca))
            await flowing.head()
            stalled = [upstream.start(make_request(f"{provider.url}/stalled", ca_file=ca)) for _ in range(3)]
            for exchange in stalled:
                await exchange.head()
            # It takes two seconds, in which libcurl renews its speed limit twice.
            assert await read_body(flowing) == b"tick" * 200
            sent = [stream.sent_bytes for stream in provider.streams if stream.path == "/stalled"]
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in stalled))

    assert len(provider.connections) == 1
    assert len(sent) == 3
    # CREDIT_BYTES, HIGH_WATER_BYTES and the bytes in flight; libcurl alone would take the whole bodies, up to 10 MB.
    assert max(sent) < 256 * 1024
    assert bodies == [make_body(size)] * 3


@pytest.mark.gen_test(timeout=30)
async def test_reader_that_stalls_repeatedly_gets_the_complete_body(ca: str) -> None:
    size = 4 * 1024 * 1024

    async def respond(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(make_body(size))
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            exchange = upstream.start(make_request(provider.url, ca_file=ca, idle_s=5))
            await exchange.head()
            pieces = []
            while data := await exchange.read():
                pieces.append(data)
                if len(pieces) % 10 == 0:
                    await asyncio.sleep(0.1)

    assert b"".join(pieces) == make_body(size)


@pytest.mark.gen_test(timeout=30)
async def test_abort_resets_a_silent_stream_at_once_and_no_other_stream(ca: str) -> None:
    release = asyncio.Event()

    async def respond(stream: Stream) -> None:
        if stream.path == "/silent":
            await asyncio.Event().wait()
        await stream.send_head()
        await stream.send(b"one ")
        await release.wait()
        await stream.send(b"two")
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            flowing = [upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca))]
            await flowing[0].head()
            flowing += [upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca)) for _ in range(5)]
            silent = upstream.start(make_request(f"{provider.url}/silent", ca_file=ca))
            await wait_until(lambda: len(provider.streams) == 7)
            (aborted,) = [stream for stream in provider.streams if stream.path == "/silent"]
            silent.abort("the client left")
            await asyncio.wait_for(aborted.client_reset, _TIMEOUT_S)
            with pytest.raises(ExchangeAborted):
                await silent.head()
            release.set()
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in flowing))
            assert upstream.running == 0

    assert bodies == [b"one two"] * 6
    assert len(provider.connections) == 1
    assert not any(stream.client_reset.done() for stream in provider.streams if stream is not aborted)


@pytest.mark.gen_test(timeout=30)
async def test_abort_resets_a_paused_stream(ca: str) -> None:
    async def respond(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(make_body(2_000_000))
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            exchange = upstream.start(make_request(provider.url, ca_file=ca))
            await wait_until(lambda: exchange.held_bytes >= HIGH_WATER_BYTES)
            exchange.abort("the client left")

            await asyncio.wait_for(provider.streams[0].client_reset, _TIMEOUT_S)


@pytest.mark.gen_test(timeout=30)
async def test_lost_connection_breaks_all_its_streams_and_the_next_request_opens_another(ca: str) -> None:
    async def respond(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(b"warm")
        if stream.path != "/warm":
            await asyncio.Event().wait()
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            await warm_up(upstream, provider, ca)
            exchanges = [upstream.start(make_request(f"{provider.url}/held", ca_file=ca)) for _ in range(10)]
            for exchange in exchanges:
                assert await exchange.read() == b"warm"
            provider.connections[0].abort()
            errors = await asyncio.gather(*(exchange.read() for exchange in exchanges), return_exceptions=True)
            await warm_up(upstream, provider, ca)

    assert [type(error) for error in errors] == [UpstreamError] * 10
    assert all(error.request_sent for error in errors if isinstance(error, UpstreamError))
    assert len(provider.connections) == 2


@pytest.mark.gen_test(timeout=30)
async def test_stream_reset_by_the_provider_breaks_only_its_own_exchange(ca: str) -> None:
    failed = asyncio.Event()

    async def respond(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(b"half")
        if stream.path == "/failing":
            stream.reset()
            failed.set()
            return
        await failed.wait()
        await stream.send(b" whole")
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            flowing = upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca))
            await flowing.head()
            failing = upstream.start(make_request(f"{provider.url}/failing", ca_file=ca))

            assert await failing.read() == b"half"
            with pytest.raises(UpstreamError):
                await failing.read()
            assert await read_body(flowing) == b"half whole"
            assert len(provider.connections) == 1


@pytest.mark.gen_test(timeout=30)
async def test_connection_after_goaway_finishes_its_streams_and_the_next_request_opens_another(
    ca: str,
) -> None:
    release = asyncio.Event()

    async def respond(stream: Stream) -> None:
        await stream.send_head()
        if stream.path == "/held":
            await stream.send(b"half ")
            stream.connection.go_away()
            await release.wait()
        await stream.send(b"warm")
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            held = upstream.start(make_request(f"{provider.url}/held", ca_file=ca))
            assert await held.read() == b"half "
            await warm_up(upstream, provider, ca)
            release.set()

            assert await read_body(held) == b"warm"
            assert held.complete

    assert [len(connection.streams) for connection in provider.connections] == [1, 1]


@pytest.mark.gen_test(timeout=30)
async def test_unprocessed_stream_is_retried_on_a_new_connection(ca: str) -> None:
    body = make_body(200_000)

    async def respond(stream: Stream) -> None:
        if stream.path != "/warm" and len(provider.connections) == 1:
            stream.connection.go_away(refuse=stream)
            return
        await stream.send_head()
        await stream.send(b"warm" if stream.path == "/warm" else bytes(stream.body))
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            await warm_up(upstream, provider, ca)

            assert await read_body(upstream.start(make_request(f"{provider.url}/x", ca_file=ca, body=body))) == body

    assert [[stream.path for stream in connection.streams.values()] for connection in provider.connections] == [
        ["/warm", "/x"],
        ["/x"],
    ]


@pytest.mark.gen_test(timeout=30)
async def test_request_that_the_provider_may_have_processed_is_not_retried(ca: str) -> None:
    async def respond(stream: Stream) -> None:
        if stream.path != "/warm":
            await asyncio.Event().wait()
        await stream.send_head()
        await stream.send(b"warm")
        stream.end()

    async with run_http2_provider(respond) as provider:
        with run_client() as upstream:
            await warm_up(upstream, provider, ca)
            exchange = upstream.start(make_request(f"{provider.url}/x", ca_file=ca))
            await wait_until(lambda: len(provider.streams) == 2)
            await asyncio.sleep(0.6)  # longer than the time in which a retry is allowed
            provider.connections[0].abort()
            with pytest.raises(UpstreamError) as caught:
                await exchange.head()

    assert caught.value.request_sent
    assert len(provider.streams) == 2
