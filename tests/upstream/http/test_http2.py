"""What the exchange promises when many streams share a connection (RFC 9113)."""

from __future__ import annotations

import asyncio
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

#: Seconds; what is waited for takes milliseconds.
PATIENCE_S = 20


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_ca_file(tmp_path_factory.mktemp("authority"))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  # the provider has no event for every state
            await asyncio.sleep(0.005)


async def warm(upstream: UpstreamClient, provider: Provider, ca: str) -> None:
    """Make one whole call, so that a connection stands."""
    assert await read_body(upstream.start(make_request(f"{provider.url}/warm", ca_file=ca))) == b"warm"


def of_size(size: int) -> bytes:
    """Bytes that differ with their place and with `size`."""
    return b"".join(hashlib.sha256(b"%d %d" % (size, at)).digest() for at in range(size // 32 + 1))[:size]


@pytest.mark.gen_test(timeout=30)
async def test_a_hundred_streams_are_open_at_once_on_the_connection_that_stands(ca: str) -> None:
    let_go = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await stream.send_head()
        if stream.path == "/warm":
            await stream.send(b"warm")
        else:
            await let_go.wait()
            await stream.send(of_size(int(stream.path[1:])))
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            await warm(upstream, provider, ca)
            sizes = [20_000 + number for number in range(100)]
            exchanges = [upstream.start(make_request(f"{provider.url}/{size}", ca_file=ca)) for size in sizes]
            await until(lambda: len(provider.streams) == 101)
            heads = await asyncio.gather(*(exchange.head() for exchange in exchanges))
            open_at_once = [connection.most_open for connection in provider.connections]
            let_go.set()
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in exchanges))

    assert open_at_once == [100]
    assert {(head.status, head.reason) for head in heads} == {(200, "")}
    assert bodies == [of_size(size) for size in sizes]


@pytest.mark.gen_test(timeout=30)
async def test_where_few_streams_fit_on_a_connection_no_stream_waits_for_the_end_of_another(ca: str) -> None:
    let_go = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(b"warm")
        if stream.path != "/warm":
            await let_go.wait()
        stream.end()

    async with run_http2_provider(answer, max_streams=8) as provider:
        with run_client() as upstream:
            await warm(upstream, provider, ca)
            for _ in range(2):
                exchanges = [upstream.start(make_request(f"{provider.url}/held", ca_file=ca)) for _ in range(40)]
                async with asyncio.timeout(PATIENCE_S):
                    first = [await exchange.read() for exchange in exchanges]
                let_go.set()
                await asyncio.gather(*(read_body(exchange) for exchange in exchanges))
                let_go.clear()
                assert first == [b"warm"] * 40
            on_each = [connection.most_open for connection in provider.connections]

    assert max(on_each) == 8
    assert len(on_each) <= 33  # the second time needed no new one


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize("size", [0, 1, 16_384, 65_536, 300_000, 3_000_000])
async def test_a_body_of_any_size_goes_up_and_comes_down_whole(size: int, ca: str) -> None:
    async def echo(stream: Stream) -> None:
        await stream.send_head(200, ("content-length", str(size)))
        await stream.send(bytes(stream.body))
        stream.end()

    async with run_http2_provider(echo) as provider:
        with run_client() as upstream:
            exchange = upstream.start(make_request(provider.url, ca_file=ca, body=of_size(size)))

            assert await read_body(exchange) == of_size(size)
            assert exchange.complete


@pytest.mark.gen_test(timeout=30)
async def test_a_body_whose_length_is_known_does_not_wait_for_its_last_bytes(ca: str) -> None:
    """libcurl's limit on speed, which keeps windows small, would hold its last hundredth back for 0.2 s each time."""

    async def answer(stream: Stream) -> None:
        await stream.send_head(200, ("content-length", "20000"))
        await stream.send(of_size(20_000))
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            began = time.monotonic()
            for _ in range(30):
                await read_body(upstream.start(make_request(provider.url, ca_file=ca)))

            assert time.monotonic() - began < 3


@pytest.mark.gen_test(timeout=30)
async def test_streams_that_nobody_reads_hold_their_own_provider_back_and_no_other_stream(ca: str) -> None:
    size = 8 * 1024 * 1024

    async def answer(stream: Stream) -> None:
        await stream.send_head()
        if stream.path == "/stalled":
            await stream.send(of_size(size))
        else:
            for _ in range(200):
                await stream.send(b"tick")
                await asyncio.sleep(0.01)
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            flowing = upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca))
            await flowing.head()
            stalled = [upstream.start(make_request(f"{provider.url}/stalled", ca_file=ca)) for _ in range(3)]
            for exchange in stalled:
                await exchange.head()
            # Two seconds: long enough for the limit on speed to be lifted twice.
            assert await read_body(flowing) == b"tick" * 200
            sent = [stream.sent for stream in provider.streams if stream.path == "/stalled"]
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in stalled))

    assert len(provider.connections) == 1
    assert len(sent) == 3
    assert max(sent) < 256 * 1024
    assert bodies == [of_size(size)] * 3


@pytest.mark.gen_test(timeout=30)
async def test_a_reader_that_stalls_again_and_again_gets_all_of_it(ca: str) -> None:
    size = 4 * 1024 * 1024

    async def answer(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(of_size(size))
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            exchange = upstream.start(make_request(provider.url, ca_file=ca, idle_s=5))
            await exchange.head()
            pieces = []
            while data := await exchange.read():
                pieces.append(data)
                if len(pieces) % 10 == 0:
                    await asyncio.sleep(0.1)

    assert b"".join(pieces) == of_size(size)


@pytest.mark.gen_test(timeout=30)
async def test_abort_takes_back_one_silent_stream_at_once_and_leaves_the_others(ca: str) -> None:
    let_go = asyncio.Event()

    async def answer(stream: Stream) -> None:
        if stream.path == "/silent":
            await asyncio.Event().wait()
        await stream.send_head()
        await stream.send(b"one ")
        await let_go.wait()
        await stream.send(b"two")
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            flowing = [upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca))]
            await flowing[0].head()
            flowing += [upstream.start(make_request(f"{provider.url}/flowing", ca_file=ca)) for _ in range(5)]
            silent = upstream.start(make_request(f"{provider.url}/silent", ca_file=ca))
            await until(lambda: len(provider.streams) == 7)
            (taken_back,) = [stream for stream in provider.streams if stream.path == "/silent"]
            aborted_at = time.monotonic()
            silent.abort("the client left")
            seen_at = await asyncio.wait_for(taken_back.reset_at, PATIENCE_S)
            with pytest.raises(ExchangeAborted):
                await silent.head()
            let_go.set()
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in flowing))
            assert upstream.running == 0

    assert seen_at - aborted_at < 0.1
    assert bodies == [b"one two"] * 6
    assert len(provider.connections) == 1
    assert not any(stream.reset_at.done() for stream in provider.streams if stream is not taken_back)


@pytest.mark.gen_test(timeout=30)
async def test_abort_takes_back_a_stream_that_is_paused(ca: str) -> None:
    async def answer(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(of_size(2_000_000))
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            exchange = upstream.start(make_request(provider.url, ca_file=ca))
            await until(lambda: exchange.held_bytes >= HIGH_WATER_BYTES)
            exchange.abort("the client left")

            await asyncio.wait_for(provider.streams[0].reset_at, PATIENCE_S)


@pytest.mark.gen_test(timeout=30)
async def test_a_connection_that_breaks_breaks_all_its_streams_and_the_next_call_makes_another(ca: str) -> None:
    async def answer(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(b"warm")
        if stream.path != "/warm":
            await asyncio.Event().wait()
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            await warm(upstream, provider, ca)
            exchanges = [upstream.start(make_request(f"{provider.url}/held", ca_file=ca)) for _ in range(10)]
            for exchange in exchanges:
                assert await exchange.read() == b"warm"
            provider.connections[0].cut()
            ends = await asyncio.gather(*(exchange.read() for exchange in exchanges), return_exceptions=True)
            await warm(upstream, provider, ca)

    assert [type(end) for end in ends] == [UpstreamError] * 10
    assert all(end.request_sent for end in ends if isinstance(end, UpstreamError))
    assert len(provider.connections) == 2


@pytest.mark.gen_test(timeout=30)
async def test_a_stream_that_the_provider_takes_back_is_broken_and_the_others_are_not(ca: str) -> None:
    failed = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await stream.send_head()
        await stream.send(b"half")
        if stream.path == "/failing":
            stream.fail()
            failed.set()
            return
        await failed.wait()
        await stream.send(b" whole")
        stream.end()

    async with run_http2_provider(answer) as provider:
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
async def test_a_provider_that_takes_no_new_stream_ends_the_old_ones_and_gets_the_next_on_a_new_connection(
    ca: str,
) -> None:
    let_go = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await stream.send_head()
        if stream.path == "/held":
            await stream.send(b"half ")
            stream.connection.go_away()
            await let_go.wait()
        await stream.send(b"warm")
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            held = upstream.start(make_request(f"{provider.url}/held", ca_file=ca))
            assert await held.read() == b"half "
            await warm(upstream, provider, ca)
            let_go.set()

            assert await read_body(held) == b"warm"
            assert held.complete

    assert [len(connection.streams) for connection in provider.connections] == [1, 1]


@pytest.mark.gen_test(timeout=30)
async def test_a_stream_that_the_provider_refused_unseen_is_sent_again_on_a_new_connection(ca: str) -> None:
    body = of_size(200_000)

    async def answer(stream: Stream) -> None:
        if stream.path != "/warm" and len(provider.connections) == 1:
            stream.connection.go_away(refuse=stream)
            return
        await stream.send_head()
        await stream.send(b"warm" if stream.path == "/warm" else bytes(stream.body))
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            await warm(upstream, provider, ca)

            assert await read_body(upstream.start(make_request(f"{provider.url}/x", ca_file=ca, body=body))) == body

    assert [[stream.path for stream in one.streams.values()] for one in provider.connections] == [
        ["/warm", "/x"],
        ["/x"],
    ]


@pytest.mark.gen_test(timeout=30)
async def test_a_call_that_the_provider_may_have_acted_on_is_not_sent_again(ca: str) -> None:
    async def answer(stream: Stream) -> None:
        if stream.path != "/warm":
            await asyncio.Event().wait()
        await stream.send_head()
        await stream.send(b"warm")
        stream.end()

    async with run_http2_provider(answer) as provider:
        with run_client() as upstream:
            await warm(upstream, provider, ca)
            exchange = upstream.start(make_request(f"{provider.url}/x", ca_file=ca))
            await until(lambda: len(provider.streams) == 2)
            await asyncio.sleep(0.6)  # a provider that refuses a stream says so sooner
            provider.connections[0].cut()
            with pytest.raises(UpstreamError) as caught:
                await exchange.head()

    assert caught.value.request_sent
    assert len(provider.streams) == 2
