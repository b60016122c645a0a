"""Exchanges over HTTP/1.1 with providers that respond, stall, break off and close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from tests.upstream.requests import make_request, read_body, run_client
from tests.upstream.tcp_provider import Respond, run_provider
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import HIGH_WATER_BYTES, Exchange

MakeClient = Callable[[], UpstreamClient]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.fixture
def make_client(io_loop: object) -> Iterator[MakeClient]:
    """Yield a function that creates a client on the running loop; close its clients after the test."""
    with contextlib.ExitStack() as clients:
        yield lambda: clients.enter_context(run_client())


@pytest.mark.gen_test
async def test_body_is_complete_and_in_order(make_client: MakeClient) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in (b"one,", b"two,", b"three"):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with run_provider(respond) as url:
        exchange = make_client().start(make_request(url))

        assert await read_body(exchange) == b"one,two,three"
        assert exchange.complete


@pytest.mark.gen_test
async def test_request_has_only_the_given_headers(make_client: MakeClient) -> None:
    received: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readexactly(2))
        writer.write(OK + b"Content-Length: 0\r\n\r\n")

    # libcurl alone would add Accept and User-Agent, Tornado's client Accept-Encoding.
    async with run_provider(respond, heads=received) as url:
        await read_body(make_client().start(make_request(f"{url}/v1/x?a=%2Fb")))

    head, body = received
    assert body == b"{}"
    assert sorted(head.split(b"\r\n")[:-2]) == sorted(
        [
            b"POST /v1/x?a=%2Fb HTTP/1.1",
            b"Host: " + url.removeprefix("http://").encode(),
            b"Content-Type: application/json",
            b"x-api-key: provider-key",
            b"Content-Length: 2",
        ]
    )


@pytest.mark.gen_test
async def test_abort_closes_the_connection_while_the_provider_is_silent(make_client: MakeClient) -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        await reader.read()
        closed.set()

    async with run_provider(silent) as url:
        exchange = make_client().start(make_request(url))
        await asyncio.sleep(0.1)
        exchange.abort("the client left")

        with pytest.raises(ExchangeAborted):
            await exchange.head()
        await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.gen_test
async def test_slow_reader_holds_the_provider_back_and_loses_no_byte(make_client: MakeClient) -> None:
    size = 40 * 1024 * 1024
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        piece = b"x" * 65536
        while written < size:
            writer.write(piece)
            written += len(piece)
            await writer.drain()

    async with run_provider(pour) as url:
        exchange = make_client().start(replace(make_request(url), method="GET", body=None))
        await exchange.head()
        await asyncio.sleep(0.5)
        written_while_stalled = written

        assert exchange.held_bytes <= HIGH_WATER_BYTES + 16 * 1024
        # The kernel's socket buffers take some megabytes.
        assert written_while_stalled < 16 * 1024 * 1024
        assert len(await read_body(exchange)) == size


@pytest.mark.gen_test
@pytest.mark.parametrize("chunks", [1, 7, 8, 9, 200, 5000])
async def test_small_chunks_are_read_whole_and_many_at_a_time(
    make_client: MakeClient, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    on_body = Exchange.on_body
    monkeypatch.setattr(Exchange, "on_body", lambda self, data: passed.append(len(data)) or on_body(self, data))
    events = [b"data: %d %b\n\n" % (number, b"x" * 100) for number in range(chunks)]

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        writer.write(b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events))
        await writer.drain()
        await complete.wait()
        writer.write(b"0\r\n\r\n")

    complete = asyncio.Event()
    async with run_provider(respond) as url:
        exchange = make_client().start(make_request(url))
        await exchange.head()
        body, reads = b"", 0
        while len(body) < len(b"".join(events)):
            body += await asyncio.wait_for(exchange.read(), 5)
            reads += 1
        complete.set()

        assert (body, await exchange.read()) == (b"".join(events), b"")
        assert reads <= 1 + chunks // 50
        assert len(passed) <= 11 + chunks // 5


@pytest.mark.gen_test
async def test_incomplete_body_raises_after_its_bytes(make_client: MakeClient) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 100\r\n\r\nhalf")
        await writer.drain()

    async with run_provider(cut) as url:
        exchange = make_client().start(make_request(url))
        await exchange.head()

        assert await exchange.read() == b"half"
        with pytest.raises(UpstreamError) as caught:
            await exchange.read()
        assert caught.value.request_sent


@pytest.mark.gen_test
async def test_refused_connection_reports_that_no_byte_was_sent(make_client: MakeClient) -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await make_client().start(make_request("http://127.0.0.1:1/")).head()

    assert caught.value.status == 502
    assert not caught.value.request_sent


@pytest.mark.gen_test
async def test_silent_provider_times_out(make_client: MakeClient) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with run_provider(silent) as url:
        with pytest.raises(UpstreamTimeout) as caught:
            await make_client().start(make_request(url, idle_s=0.5)).head()

    assert caught.value.status == 504
    assert caught.value.request_sent


@pytest.mark.gen_test
async def test_exchanges_aborted_in_every_phase_leave_no_handle_running(make_client: MakeClient) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)
        writer.write(b"0\r\n\r\n")

    async with run_provider(drip) as url:
        upstream = make_client()
        # One abort every 1.5 ms: while connecting, before the head, between chunks and after the end.
        aborted = [upstream.start(make_request(url)) for _ in range(100)]
        completed = [upstream.start(make_request(url)) for _ in range(20)]
        for number, exchange in enumerate(aborted):
            asyncio.get_running_loop().call_later(0.0015 * number, exchange.abort, "the client left")
        bodies = await asyncio.gather(*(read_body(exchange) for exchange in completed))
        results = await asyncio.gather(*(read_body(exchange) for exchange in aborted), return_exceptions=True)

    assert bodies == [b"x" * 20] * 20
    assert all(isinstance(result, ExchangeAborted | bytes) for result in results)
    assert upstream.running == 0


@pytest.mark.gen_test
async def test_exchange_after_an_aborted_one_gets_only_its_own_response(make_client: MakeClient) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readexactly(4000)
        if body[:1] == b"s":  # silent
            await reader.read()
        elif body[:1] == b"p":  # more than the exchange holds: the transfer is paused
            writer.write(OK + b"Content-Length: 90000000\r\n\r\n" + b"x" * 1_000_000)
            await reader.read()
        writer.write(OK + b"Content-Length: 4000\r\n\r\n" + body)

    async with run_provider(respond) as url:
        upstream = make_client()
        for number, phase in enumerate((b"s", b"p", b"p", b"s", b"p")):
            aborted = upstream.start(make_request(url, body=phase * 4000))
            if phase == b"p":
                await aborted.head()
                while aborted.held_bytes < HIGH_WATER_BYTES:  # noqa: ASYNC110  # a pause has no event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            aborted.abort("the client left")

            body = b"%04d" % number * 1000
            assert await asyncio.wait_for(read_body(upstream.start(make_request(url, body=body))), 5) == body


def close_second_request(delay_s: float, bodies: list[bytes]) -> Respond:
    """Respond to the first request of a connection, and close it `delay_s` seconds after the second one.

    `bodies` collects the request bodies.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(2))
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(2))
        await asyncio.sleep(delay_s)

    return respond


@pytest.mark.gen_test
async def test_request_on_a_connection_that_is_just_closing_is_retried(make_client: MakeClient) -> None:
    bodies: list[bytes] = []

    async with run_provider(close_second_request(0, bodies)) as url:
        upstream = make_client()
        await read_body(upstream.start(make_request(url)))

        assert await read_body(upstream.start(make_request(url, body=b"[]"))) == b""

    assert bodies == [b"{}", b"[]", b"[]"]  # the last one on a new connection


@pytest.mark.gen_test
async def test_request_that_the_provider_may_have_processed_is_not_retried(make_client: MakeClient) -> None:
    bodies: list[bytes] = []

    # 0.6 s is longer than the time in which a retry is allowed.
    async with run_provider(close_second_request(0.6, bodies)) as url:
        upstream = make_client()
        await read_body(upstream.start(make_request(url)))
        with pytest.raises(UpstreamError) as caught:
            await upstream.start(make_request(url, body=b"[]")).head()

    assert caught.value.request_sent
    assert bodies == [b"{}", b"[]"]


@pytest.mark.gen_test
async def test_1xx_heads_are_skipped(make_client: MakeClient) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Made\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n")

    async with run_provider(respond) as url:
        head = await make_client().start(make_request(url)).head()

    assert (head.status, head.reason) == (201, "Made")
    assert head.headers == (("X-A", "1"), ("X-A", "2"), ("Content-Length", "0"))


@pytest.mark.gen_test
@pytest.mark.parametrize("step", [1, 7, 1000], ids=["byte by byte", "in pieces", "in one read"])
async def test_head_and_body_are_the_same_however_they_arrive(make_client: MakeClient, step: int) -> None:
    response = (
        b"HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\n"
        b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nbody\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        for start in range(0, len(response), step):
            writer.write(response[start : start + step])
            await writer.drain()
            await asyncio.sleep(0)  # the client reads this piece alone

    async with run_provider(respond) as url:
        exchange = make_client().start(make_request(url))
        head, body = await exchange.head(), await read_body(exchange)

    assert (head.status, head.reason, body) == (200, "Fine", b"body")
    assert head.headers == (("X-A", "1"), ("Transfer-Encoding", "chunked"))


@pytest.mark.gen_test
async def test_head_is_there_before_the_first_byte_of_the_body(make_client: MakeClient) -> None:
    head_read = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 4\r\n\r\n")
        await head_read.wait()
        writer.write(b"body")

    async with run_provider(respond) as url:
        exchange = make_client().start(make_request(url))
        assert (await asyncio.wait_for(exchange.head(), 5)).status == 200
        head_read.set()
        assert await read_body(exchange) == b"body"


@pytest.mark.gen_test
@pytest.mark.parametrize("body", [b"", b"4\r\nbody\r\n0\r\n\r\n"], ids=["head alone", "with its body"])
async def test_head_that_is_not_valid_ends_the_exchange(make_client: MakeClient, body: bytes) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        await reader.readexactly(2)
        await reader.read()

    async with run_provider(respond) as url:
        upstream = make_client()
        exchange = upstream.start(make_request(url))
        with pytest.raises(UpstreamUnreachable, match="both Content-Length and Transfer-Encoding") as caught:
            await asyncio.wait_for(exchange.head(), 5)

    assert caught.value.request_sent
    assert (exchange.finished, upstream.running) == (True, 0)


@pytest.mark.gen_test
async def test_headers_that_are_too_large_are_named(make_client: MakeClient) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"X-Large: " + b"a" * 400_000 + b"\r\n\r\n")

    async with run_provider(respond) as url:
        with pytest.raises(UpstreamError) as broken:
            await make_client().start(make_request(url)).head()

    assert broken.value.message == "the connection to the provider broke: its headers are too large"
