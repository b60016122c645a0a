"""Bursts of requests to a provider without a recent connection."""

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

#: Limit for events that take milliseconds.
_TIMEOUT_S = 20


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_ca_file(tmp_path_factory.mktemp("authority"))


async def echo(stream: Stream) -> None:
    await stream.send_head()
    await stream.send(bytes(stream.body))
    stream.end()


@pytest.mark.gen_test(timeout=30)
async def test_burst_opens_one_connection_to_an_http2_provider(ca: str) -> None:
    release = asyncio.Event()

    async def respond_when_released(stream: Stream) -> None:
        await release.wait()
        await echo(stream)

    async with run_http2_provider(respond_when_released) as provider:
        with run_client() as upstream:
            exchanges = [upstream.start(make_request(provider.url, ca_file=ca, body=b"%d" % n)) for n in range(100)]
            async with asyncio.timeout(_TIMEOUT_S):
                while len(provider.streams) < 100:  # noqa: ASYNC110  # the provider has no event for it
                    await asyncio.sleep(0.01)
            peaks = [connection.peak_streams for connection in provider.connections]
            release.set()
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in exchanges))

    assert peaks == [100]
    assert bodies == [b"%d" % n for n in range(100)]


@pytest.mark.gen_test(timeout=30)
async def test_burst_over_the_stream_limit_opens_more_connections_instead_of_waiting(ca: str) -> None:
    release = asyncio.Event()

    async def end_when_released(stream: Stream) -> None:
        await stream.send_head()
        await release.wait()
        stream.end()

    async with run_http2_provider(end_when_released, max_streams=8) as provider:
        with run_client() as upstream:
            exchanges = [upstream.start(make_request(provider.url, ca_file=ca)) for _ in range(40)]
            async with asyncio.timeout(_TIMEOUT_S):
                heads = await asyncio.gather(*(exchange.head() for exchange in exchanges))
            release.set()
            await asyncio.gather(*(read_body(exchange) for exchange in exchanges))

    assert [head.status for head in heads] == [200] * 40
    assert max(connection.peak_streams for connection in provider.connections) == 8


@contextlib.asynccontextmanager
async def lose_first_connection(url: str) -> AsyncIterator[str]:
    """Forward connections to the provider at `url`, but leave the first one without a byte; yield the new base URL."""
    port = int(url.rpartition(":")[2])
    writers: list[asyncio.StreamWriter] = []
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def on_connection(client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        writers.append(client_writer)
        if len(writers) == 1:
            return
        provider_reader, provider_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(provider_writer)
        pumps.append(asyncio.create_task(pump(client_reader, provider_writer)))
        pumps.append(asyncio.create_task(pump(provider_reader, client_writer)))

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await asyncio.sleep(0)


@pytest.mark.gen_test(timeout=30)
async def test_lost_connection_delays_the_other_requests_by_one_second_only(ca: str) -> None:
    async with run_http2_provider(echo) as provider, lose_first_connection(provider.url) as url:
        with run_client() as upstream:
            started_at = time.monotonic()
            lost = upstream.start(make_request(url, ca_file=ca, connect_s=20))
            others = [upstream.start(make_request(url, ca_file=ca, connect_s=20)) for _ in range(10)]
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in others))
            elapsed_s = time.monotonic() - started_at
            lost.abort("the test is over")
            assert upstream.running == 0

    assert bodies == [b"{}"] * 10
    assert 0.9 < elapsed_s < 10


@pytest.mark.gen_test(timeout=30)
async def test_next_request_becomes_the_probe_when_the_probe_is_aborted(ca: str) -> None:
    async with run_http2_provider(echo) as provider, lose_first_connection(provider.url) as url:
        with run_client() as upstream:
            exchanges = [upstream.start(make_request(url, ca_file=ca)) for _ in range(12)]
            await asyncio.sleep(0.1)
            exchanges[5].abort("the client left while the request waited")
            exchanges[0].abort("the client left while the request was the probe")
            bodies = await asyncio.gather(*(read_body(exchange) for exchange in exchanges), return_exceptions=True)
            assert upstream.running == 0

    assert [type(body) for body in (bodies[0], bodies[5])] == [ExchangeAborted] * 2
    assert not any(body.request_sent for body in bodies if isinstance(body, ExchangeAborted))
    assert [body for body in bodies if not isinstance(body, ExchangeAborted)] == [b"{}"] * 10
    assert len(provider.streams) == 10


@pytest.mark.gen_test(timeout=30)
async def test_refused_connection_fails_all_waiting_requests_at_once() -> None:
    with run_client() as upstream:
        started_at = time.monotonic()
        exchanges = [upstream.start(make_request("http://127.0.0.1:1/")) for _ in range(50)]
        errors = await asyncio.gather(*(exchange.head() for exchange in exchanges), return_exceptions=True)

        assert [type(error) for error in errors] == [UpstreamUnreachable] * 50
        assert not any(error.request_sent for error in errors if isinstance(error, UpstreamUnreachable))
        assert time.monotonic() - started_at < 10  # one after another they wait for a second each
        assert upstream.running == 0


@pytest.mark.gen_test(timeout=30)
async def test_requests_without_a_connection_wait_little_longer_than_the_connect_timeout(ca: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, run_client() as upstream:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        started_at = time.monotonic()
        exchanges = [upstream.start(make_request(url, ca_file=ca, connect_s=1.5)) for _ in range(20)]
        errors = await asyncio.gather(*(exchange.head() for exchange in exchanges), return_exceptions=True)

        assert [type(error) for error in errors] == [UpstreamTimeout] * 20
        assert not any(error.request_sent for error in errors if isinstance(error, UpstreamTimeout))
        assert 1.4 < time.monotonic() - started_at < 8
        assert upstream.running == 0


@pytest.mark.gen_test(timeout=30)
async def test_close_aborts_waiting_requests(ca: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        with run_client() as upstream:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            exchanges = [upstream.start(make_request(url, ca_file=ca)) for _ in range(5)]
            await asyncio.sleep(0.05)

        errors = await asyncio.gather(*(exchange.head() for exchange in exchanges), return_exceptions=True)

    assert [type(error) for error in errors] == [ExchangeAborted] * 5
