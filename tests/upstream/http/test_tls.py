"""Whom the exchange trusts, and what it makes of TLS that fails, stalls or breaks off."""

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

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def https_provider(context: ssl.SSLContext, answer: Answer) -> AsyncIterator[str]:
    """An HTTP/1.1 provider that answers one request of each connection, and then leaves it to `answer` to close it."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await reader.readuntil(b"\r\n\r\n{}")
                await answer(reader, writer)
                await reader.read()
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)


async def say_hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.gen_test(timeout=30)
async def test_a_certificate_by_the_authority_that_ca_file_names_is_accepted(tmp_path: Path) -> None:
    async with https_provider(make_server_context(), say_hello) as url:
        with run_client() as upstream:
            assert await read_body(upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))) == b"hello"


STRANGER = trustme.CA()


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize(
    ("make", "word"),
    [
        pytest.param(lambda: make_server_context(authority=STRANGER), "issuer certificate", id="another authority's"),
        pytest.param(lambda: make_server_context(name="provider.example"), "127.0.0.1", id="another host's"),
        pytest.param(lambda: make_server_context(expired=True), "expired", id="expired"),
    ],
)
async def test_a_certificate_that_does_not_hold_is_refused_before_anything_is_sent(
    make: Callable[[], ssl.SSLContext], word: str, tmp_path: Path
) -> None:
    asked: list[bool] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(True)
        await say_hello(reader, writer)

    async with https_provider(make(), answer) as url:
        with run_client() as upstream:
            with pytest.raises(UpstreamUnreachable) as caught:
                await upstream.start(make_request(url, ca_file=write_ca_file(tmp_path))).head()
            # An authority that is trusted for one request is not for the next.
            with pytest.raises(UpstreamUnreachable):
                await upstream.start(make_request(url)).head()

    assert caught.value.status == 502
    assert not caught.value.request_sent
    assert word in caught.value.message
    assert asked == []


@pytest.mark.gen_test(timeout=30)
async def test_a_connection_that_was_trusted_by_one_ca_file_is_not_used_for_a_request_that_names_none(
    tmp_path: Path,
) -> None:
    async with https_provider(make_server_context(), say_hello) as url:
        with run_client() as upstream:
            assert await read_body(upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))) == b"hello"

            with pytest.raises(UpstreamUnreachable):
                await upstream.start(make_request(url)).head()


@pytest.mark.gen_test(timeout=30)
async def test_a_handshake_that_stalls_ends_by_the_connect_time_out(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, run_client() as upstream:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.start(make_request(url, ca_file=write_ca_file(tmp_path), connect_s=0.5)).head()

    assert caught.value.status == 504
    assert not caught.value.request_sent
    assert 0.4 < time.monotonic() - began < 5


@pytest.mark.gen_test(timeout=30)
async def test_what_ends_before_anything_was_sent_says_so(tmp_path: Path) -> None:
    """By abort() and by the idle time-out; on a handle that has sent a request before."""
    ca = write_ca_file(tmp_path)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent, run_client() as upstream:
        async with https_provider(make_server_context(), say_hello) as url:
            assert await read_body(upstream.start(make_request(url, ca_file=ca))) == b"hello"
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        aborted = upstream.start(make_request(url, ca_file=ca))
        await asyncio.sleep(0.05)
        aborted.abort("the client left")
        with pytest.raises(ExchangeAborted) as by_abort:
            await aborted.head()
        with pytest.raises(UpstreamTimeout) as by_silence:
            await upstream.start(make_request(url, ca_file=ca, idle_s=0.2)).head()

    assert not by_abort.value.request_sent
    assert not by_silence.value.request_sent


async def say_goodbye(writer: asyncio.StreamWriter) -> None:
    """End the connection with TLS's close_notify."""
    await writer.drain()
    writer.close()


async def end_without_goodbye(writer: asyncio.StreamWriter) -> None:
    """End the connection below TLS, as somebody on the way can."""
    await writer.drain()
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)


async def reset(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await asyncio.sleep(0.05)  # a reset overtakes what has not been read yet
    writer.transport.abort()


LENGTH = b"Content-Length: 100\r\n\r\nhalf"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
TO_THE_END = b"\r\nhalf"


@pytest.mark.gen_test(timeout=30)
@pytest.mark.parametrize(
    ("rest", "end"),
    [
        pytest.param(LENGTH, say_goodbye, id="of known length, closed"),
        pytest.param(LENGTH, end_without_goodbye, id="of known length, cut"),
        pytest.param(LENGTH, reset, id="of known length, reset"),
        pytest.param(CHUNKED, say_goodbye, id="chunked, closed"),
        pytest.param(CHUNKED, end_without_goodbye, id="chunked, cut"),
        pytest.param(CHUNKED, reset, id="chunked, reset"),
        pytest.param(TO_THE_END, end_without_goodbye, id="to the end of the connection, cut"),
        pytest.param(TO_THE_END, reset, id="to the end of the connection, reset"),
    ],
)
async def test_a_body_that_breaks_off_is_broken_after_its_bytes(
    rest: bytes, end: Callable[[asyncio.StreamWriter], Awaitable[None]], tmp_path: Path
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + rest)
        await end(writer)

    async with https_provider(make_server_context(), answer) as url:
        with run_client() as upstream:
            exchange = upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))
            assert await exchange.read() == b"half"
            with pytest.raises(UpstreamError) as caught:
                await exchange.read()

    assert caught.value.request_sent
    assert not exchange.complete


@pytest.mark.gen_test(timeout=30)
async def test_a_body_without_a_length_is_whole_when_its_connection_is_closed_properly(tmp_path: Path) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await say_goodbye(writer)

    async with https_provider(make_server_context(), answer) as url:
        with run_client() as upstream:
            assert await read_body(upstream.start(make_request(url, ca_file=write_ca_file(tmp_path)))) == b"half"
