"""Exchanges over TLS: trusted certificates, failed and stalled handshakes, connections that break off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from tests.upstream.authority import make_server_context, write_ca_file
from tests.upstream.requests import make_request, read_body, run_client
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamTimeout, UpstreamUnreachable

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def run_https_provider(context: ssl.SSLContext, respond: Respond) -> AsyncIterator[str]:
    """Serve HTTP/1.1, calling `respond` after the one request of each connection; yield the base URL."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # ssl.SSLError: a client that rejects the certificate sends an alert.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await reader.readuntil(b"\r\n\r\n{}")
                await respond(reader, writer)
                await reader.read()
        finally:
            writer.transport.abort()

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)


async def respond_hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.gen_test(timeout=30)
async def test_certificate_of_the_authority_in_ca_file_is_accepted(tmp_path: Path) -> None:
    async with run_https_provider(make_server_context(), respond_hello) as url:
        with run_client() as upstream:
            assert await read_body(upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))) == b"hello"


UNTRUSTED_AUTHORITY = trustme.CA()


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize(
    ("make_context", "expected_text"),
    [
        pytest.param(
            lambda: make_server_context(authority=UNTRUSTED_AUTHORITY), "issuer certificate", id="untrusted authority"
        ),
        pytest.param(lambda: make_server_context(name="provider.example"), "127.0.0.1", id="other host"),
        pytest.param(lambda: make_server_context(expired=True), "expired", id="expired"),
    ],
)
async def test_invalid_certificate_is_rejected_before_any_byte_is_sent(
    make_context: Callable[[], ssl.SSLContext], expected_text: str, tmp_path: Path
) -> None:
    requests: list[bool] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(True)
        await respond_hello(reader, writer)

    async with run_https_provider(make_context(), respond) as url:
        with run_client() as upstream:
            with pytest.raises(UpstreamUnreachable) as caught:
                await upstream.start(make_request(url, ca_file=write_ca_file(tmp_path))).head()
            # The handle is reused: the authority of one request must not be trusted for the next.
            with pytest.raises(UpstreamUnreachable):
                await upstream.start(make_request(url)).head()

    assert caught.value.status == 502
    assert not caught.value.request_sent
    assert expected_text in caught.value.message
    assert requests == []


@pytest.mark.gen_test(timeout=30)
async def test_connection_trusted_by_a_ca_file_is_not_reused_for_a_request_without_one(
    tmp_path: Path,
) -> None:
    async with run_https_provider(make_server_context(), respond_hello) as url:
        with run_client() as upstream:
            assert await read_body(upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))) == b"hello"

            with pytest.raises(UpstreamUnreachable):
                await upstream.start(make_request(url)).head()


@pytest.mark.gen_test(timeout=30)
async def test_stalled_handshake_ends_at_the_connect_timeout(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, run_client() as upstream:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        started_at = time.monotonic()
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.start(make_request(url, ca_file=write_ca_file(tmp_path), connect_s=0.5)).head()

    assert caught.value.status == 504
    assert not caught.value.request_sent
    assert 0.4 < time.monotonic() - started_at < 5


@pytest.mark.gen_test(timeout=30)
async def test_exchange_that_ends_before_any_byte_was_sent_reports_it(tmp_path: Path) -> None:
    """Both by abort() and by the idle timeout, and on a handle that has sent a request before."""
    ca = write_ca_file(tmp_path)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, run_client() as upstream:
        async with run_https_provider(make_server_context(), respond_hello) as url:
            assert await read_body(upstream.start(make_request(url, ca_file=ca))) == b"hello"
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        aborted = upstream.start(make_request(url, ca_file=ca))
        await asyncio.sleep(0.05)
        aborted.abort("the client left")
        with pytest.raises(ExchangeAborted) as aborted_error:
            await aborted.head()
        with pytest.raises(UpstreamTimeout) as idle_error:
            await upstream.start(make_request(url, ca_file=ca, idle_s=0.2)).head()

    assert not aborted_error.value.request_sent
    assert not idle_error.value.request_sent


async def close_properly(writer: asyncio.StreamWriter) -> None:
    """Close the connection with TLS close_notify."""
    await writer.drain()
    writer.close()


async def close_without_notify(writer: asyncio.StreamWriter) -> None:
    """Close the TCP connection without close_notify, as anyone on the network path can."""
    await writer.drain()
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)


async def reset(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await asyncio.sleep(0.05)  # a reset discards bytes that the client has not read yet
    writer.transport.abort()


LENGTH = b"Content-Length: 100\r\n\r\nhalf"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
CLOSE_DELIMITED = b"\r\nhalf"


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize(
    ("rest_of_response", "close"),
    [
        pytest.param(LENGTH, close_properly, id="with a length, closed"),
        pytest.param(LENGTH, close_without_notify, id="with a length, cut"),
        pytest.param(LENGTH, reset, id="with a length, reset"),
        pytest.param(CHUNKED, close_properly, id="chunked, closed"),
        pytest.param(CHUNKED, close_without_notify, id="chunked, cut"),
        pytest.param(CHUNKED, reset, id="chunked, reset"),
        pytest.param(CLOSE_DELIMITED, close_without_notify, id="close-delimited, cut"),
        pytest.param(CLOSE_DELIMITED, reset, id="close-delimited, reset"),
    ],
)
async def test_incomplete_body_raises_after_its_bytes(
    rest_of_response: bytes, close: Callable[[asyncio.StreamWriter], Awaitable[None]], tmp_path: Path
) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + rest_of_response)
        await close(writer)

    async with run_https_provider(make_server_context(), respond) as url:
        with run_client() as upstream:
            exchange = upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))
            assert await exchange.read() == b"half"
            with pytest.raises(UpstreamError) as caught:
                await exchange.read()

    assert caught.value.request_sent
    assert not exchange.complete


@pytest.mark.gen_test(timeout=30)
async def test_close_delimited_body_is_complete_if_the_connection_closes_properly(tmp_path: Path) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await close_properly(writer)

    async with run_https_provider(make_server_context(), respond) as url:
        with run_client() as upstream:
            assert await read_body(upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))) == b"half"
