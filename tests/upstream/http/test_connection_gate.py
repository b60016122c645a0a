"""Bursts of calls to a provider that was not spoken to of late."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tests.upstream.authority import write_ca_file
from tests.upstream.http2_provider import Stream, run_http2_provider
from tests.upstream.requests import make_request, read_body, run_client
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamTimeout, UpstreamUnreachable

#: Seconds; what is waited for takes milliseconds.
PATIENCE_S = 20


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_ca_file(tmp_path_factory.mktemp("authority"))


async def answer(stream: Stream) -> None:
    await stream.send_head()
    await stream.send(bytes(stream.body))
    stream.end()


@pytest.mark.gen_test(timeout=30)
async def test_a_burst_makes_one_connection_where_the_provider_speaks_http2(ca: str) -> None:
    let_go = asyncio.Event()

    async def hold(stream: Stream) -> None:
        await let_go.wait()
        await answer(stream)

    async with run_http2_provider(hold) as provider:
        with run_client() as upstream:
            calls = [upstream.start(make_request(provider.url, ca_file=ca, body=b"%d" % n)) for n in range(100)]
            async with asyncio.timeout(PATIENCE_S):
                while len(provider.streams) < 100:  # noqa: ASYNC110  # the provider has no event for it
                    await asyncio.sleep(0.01)
            open_at_once = [connection.most_open for connection in provider.connections]
            let_go.set()
            bodies = await asyncio.gather(*(read_body(call) for call in calls))

    assert open_at_once == [100]
    assert bodies == [b"%d" % n for n in range(100)]


@pytest.mark.gen_test(timeout=30)
async def test_a_burst_that_is_more_than_a_connection_takes_waits_for_no_stream_s_end(ca: str) -> None:
    let_go = asyncio.Event()

    async def hold(stream: Stream) -> None:
        await stream.send_head()
        await let_go.wait()
        stream.end()

    async with run_http2_provider(hold, max_streams=8) as provider:
        with run_client() as upstream:
            calls = [upstream.start(make_request(provider.url, ca_file=ca)) for _ in range(40)]
            async with asyncio.timeout(PATIENCE_S):
                heads = await asyncio.gather(*(call.head() for call in calls))
            let_go.set()
            await asyncio.gather(*(read_body(call) for call in calls))

    assert [head.status for head in heads] == [200] * 40
    assert max(connection.most_open for connection in provider.connections) == 8


@contextlib.asynccontextmanager
async def first_connection_lost(url: str) -> AsyncIterator[str]:
    """Another address of the provider at `url`, where nothing comes of the first connection."""
    port = int(url.rpartition(":")[2])
    writers: list[asyncio.StreamWriter] = []
    pumping: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if len(writers) == 1:
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.append(back)
        pumping.extend([asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))])

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in pumping:
            task.cancel()
        await asyncio.gather(*pumping, return_exceptions=True)
        await asyncio.sleep(0)


@pytest.mark.gen_test(timeout=30)
async def test_a_connection_that_does_not_come_about_holds_the_others_up_for_a_second_only(ca: str) -> None:
    async with run_http2_provider(answer) as provider, first_connection_lost(provider.url) as url:
        with run_client() as upstream:
            began = time.monotonic()
            lost = upstream.start(make_request(url, ca_file=ca, connect_s=20))
            others = [upstream.start(make_request(url, ca_file=ca, connect_s=20)) for _ in range(10)]
            bodies = await asyncio.gather(*(read_body(call) for call in others))
            took_s = time.monotonic() - began
            lost.abort("it was lost")
            assert upstream.running == 0

    assert bodies == [b"{}"] * 10
    assert 0.9 < took_s < 10


@pytest.mark.gen_test(timeout=30)
async def test_a_call_that_is_left_before_it_connects_makes_way_for_the_next(ca: str) -> None:
    async with run_http2_provider(answer) as provider, first_connection_lost(provider.url) as url:
        with run_client() as upstream:
            calls = [upstream.start(make_request(url, ca_file=ca)) for _ in range(12)]
            await asyncio.sleep(0.1)
            calls[5].abort("its client left while it waited")
            calls[0].abort("its client left while it connected")
            bodies = await asyncio.gather(*(read_body(call) for call in calls), return_exceptions=True)
            assert upstream.running == 0

    assert [type(body) for body in (bodies[0], bodies[5])] == [ExchangeAborted] * 2
    assert not any(body.request_sent for body in bodies if isinstance(body, ExchangeAborted))
    assert [body for body in bodies if not isinstance(body, ExchangeAborted)] == [b"{}"] * 10
    assert len(provider.streams) == 10


@pytest.mark.gen_test(timeout=30)
async def test_where_nobody_listens_all_hear_of_it_at_once() -> None:
    with run_client() as upstream:
        began = time.monotonic()
        calls = [upstream.start(make_request("http://127.0.0.1:1/")) for _ in range(50)]
        ends = await asyncio.gather(*(call.head() for call in calls), return_exceptions=True)

        assert [type(end) for end in ends] == [UpstreamUnreachable] * 50
        assert not any(end.request_sent for end in ends if isinstance(end, UpstreamUnreachable))
        assert time.monotonic() - began < 3
        assert upstream.running == 0


@pytest.mark.gen_test(timeout=30)
async def test_where_no_connection_comes_about_nobody_waits_much_longer_than_one_may_take(ca: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, run_client() as upstream:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        calls = [upstream.start(make_request(url, ca_file=ca, connect_s=1.5)) for _ in range(20)]
        ends = await asyncio.gather(*(call.head() for call in calls), return_exceptions=True)

        assert [type(end) for end in ends] == [UpstreamTimeout] * 20
        assert not any(end.request_sent for end in ends if isinstance(end, UpstreamTimeout))
        assert 1.4 < time.monotonic() - began < 8
        assert upstream.running == 0


@pytest.mark.gen_test(timeout=30)
async def test_close_ends_those_that_wait(ca: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        with run_client() as upstream:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            calls = [upstream.start(make_request(url, ca_file=ca)) for _ in range(5)]
            await asyncio.sleep(0.05)

        ends = await asyncio.gather(*(call.head() for call in calls), return_exceptions=True)

    assert [type(end) for end in ends] == [ExchangeAborted] * 5
