from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.upstream.tcp_provider import Respond, run_provider
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import HIGH_WATER_BYTES, Exchange
from tornado_proxy.upstream.http.request import Payload, UpstreamRequest
from tornado_proxy.upstream.http.response_head import parse_response_head

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.fixture
def client(io_loop: object) -> Iterator[list[UpstreamClient]]:
    """The clients a test makes inside its loop, closed when it ends."""
    made: list[UpstreamClient] = []
    yield made
    for one in made:
        one.close()


def new_client(made: list[UpstreamClient]) -> UpstreamClient:
    made.append(UpstreamClient(force_instance=True))
    return made[-1]


def request(url: str, *, method: str = "POST", body: bytes | None = b"{}", idle_s: float = 5.0) -> UpstreamRequest:
    return UpstreamRequest(
        method=method,
        url=url,
        headers=(("Content-Type", "application/json"),),
        key_headers=(("x-api-key", Secret("provider-key")),),
        body=None if body is None else Payload(body),
        connect_timeout_s=2.0,
        idle_timeout_s=idle_s,
    )


async def read_all(exchange: Exchange) -> bytes:
    await exchange.head()
    whole = []
    while data := await exchange.read():
        whole.append(data)
    return b"".join(whole)


@pytest.mark.gen_test
async def test_a_body_comes_through_whole_and_in_order(client: list[UpstreamClient]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in (b"one,", b"two,", b"three"):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with run_provider(answer) as url:
        exchange = new_client(client).start(request(url))

        assert await read_all(exchange) == b"one,two,three"
        assert exchange.complete


@pytest.mark.gen_test
async def test_only_what_was_given_is_sent_to_the_provider(client: list[UpstreamClient]) -> None:
    seen: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(2))
        writer.write(OK + b"Content-Length: 0\r\n\r\n")

    async with run_provider(collect, heads=seen) as url:
        await read_all(new_client(client).start(request(f"{url}/v1/x?a=%2Fb")))

    head, body = seen
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
async def test_abort_closes_the_provider_connection_while_the_provider_is_silent(client: list[UpstreamClient]) -> None:
    closed_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        await reader.read()
        closed_at.set_result(time.monotonic())

    async with run_provider(silent) as url:
        exchange = new_client(client).start(request(url))
        await asyncio.sleep(0.1)
        aborted_at = time.monotonic()
        exchange.abort("the client left")

        with pytest.raises(ExchangeAborted):
            await exchange.head()
        assert await asyncio.wait_for(closed_at, 5) - aborted_at < 0.1


@pytest.mark.gen_test
async def test_a_reader_that_waits_holds_the_provider_back_and_loses_nothing(client: list[UpstreamClient]) -> None:
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
        exchange = new_client(client).start(request(url, method="GET", body=None))
        await exchange.head()
        await asyncio.sleep(0.5)
        written_while_stalled = written

        assert exchange.held_bytes <= HIGH_WATER_BYTES + 16 * 1024
        assert written_while_stalled < 16 * 1024 * 1024
        assert len(await read_all(exchange)) == size


@pytest.mark.gen_test
async def test_a_body_that_breaks_off_raises_after_its_bytes(client: list[UpstreamClient]) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 100\r\n\r\nhalf")
        await writer.drain()

    async with run_provider(cut) as url:
        exchange = new_client(client).start(request(url))
        await exchange.head()

        assert await exchange.read() == b"half"
        with pytest.raises(UpstreamError) as caught:
            await exchange.read()
        assert caught.value.request_sent


@pytest.mark.gen_test
async def test_a_refused_connection_says_that_nothing_was_sent(client: list[UpstreamClient]) -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await new_client(client).start(request("http://127.0.0.1:1/")).head()

    assert caught.value.status == 502
    assert not caught.value.request_sent


@pytest.mark.gen_test
async def test_a_provider_that_stays_silent_ends_in_a_time_out(client: list[UpstreamClient]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with run_provider(silent) as url:
        with pytest.raises(UpstreamTimeout) as caught:
            await new_client(client).start(request(url, idle_s=0.5)).head()

    assert caught.value.status == 504
    assert caught.value.request_sent


@pytest.mark.gen_test
async def test_a_hundred_exchanges_in_every_phase_of_being_left_leave_no_handle_behind(
    client: list[UpstreamClient],
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)
        writer.write(b"0\r\n\r\n")

    async with run_provider(drip) as url:
        upstream = new_client(client)
        left = [upstream.start(request(url)) for _ in range(100)]
        kept = [upstream.start(request(url)) for _ in range(20)]
        for number, exchange in enumerate(left):
            asyncio.get_running_loop().call_later(0.0015 * number, exchange.abort, "left")
        bodies = await asyncio.gather(*(read_all(exchange) for exchange in kept))
        ends = await asyncio.gather(*(read_all(exchange) for exchange in left), return_exceptions=True)

    assert bodies == [b"x" * 20] * 20
    assert all(isinstance(end, ExchangeAborted | bytes) for end in ends)
    assert upstream.running == 0


@pytest.mark.gen_test
async def test_what_follows_an_exchange_that_was_left_knows_nothing_of_it(client: list[UpstreamClient]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readexactly(4000)
        if asked[:1] == b"s":
            await reader.read()
        elif asked[:1] == b"p":
            writer.write(OK + b"Content-Length: 90000000\r\n\r\n" + b"x" * 1_000_000)
            await reader.read()
        writer.write(OK + b"Content-Length: 4000\r\n\r\n" + asked)

    async with run_provider(answer) as url:
        upstream = new_client(client)
        for number, phase in enumerate((b"s", b"p", b"p", b"s", b"p")):
            left = upstream.start(request(url, body=phase * 4000))
            if phase == b"p":
                await left.head()
                while left.held_bytes < HIGH_WATER_BYTES:  # noqa: ASYNC110  # it is paused then, and says so to nobody
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            left.abort("left")

            following = b"%04d" % number * 1000
            assert await asyncio.wait_for(read_all(upstream.start(request(url, body=following))), 5) == following


def closing_after(acts_s: float, seen: list[bytes]) -> Respond:
    """Answers the first request of a connection, and closes that `acts_s` seconds after it has read another."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(2))
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        seen.append(await reader.readexactly(2))
        await asyncio.sleep(acts_s)

    return answer


@pytest.mark.gen_test
async def test_a_call_that_meets_the_end_of_a_kept_connection_is_sent_again(client: list[UpstreamClient]) -> None:
    seen: list[bytes] = []

    async with run_provider(closing_after(0, seen)) as url:
        upstream = new_client(client)
        await read_all(upstream.start(request(url)))

        assert await read_all(upstream.start(request(url, body=b"[]"))) == b""

    assert seen == [b"{}", b"[]", b"[]"]


@pytest.mark.gen_test
async def test_a_call_that_the_provider_may_have_acted_on_is_not_sent_again(client: list[UpstreamClient]) -> None:
    seen: list[bytes] = []

    async with run_provider(closing_after(0.6, seen)) as url:
        upstream = new_client(client)
        await read_all(upstream.start(request(url)))
        with pytest.raises(UpstreamError) as caught:
            await upstream.start(request(url, body=b"[]")).head()

    assert caught.value.request_sent
    assert seen == [b"{}", b"[]"]


@pytest.mark.gen_test
async def test_heads_of_1xx_are_passed_over(client: list[UpstreamClient]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Made\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n")

    async with run_provider(answer) as url:
        head = await new_client(client).start(request(url)).head()

    assert (head.status, head.reason) == (201, "Made")
    assert head.headers == (("X-A", "1"), ("X-A", "2"), ("Content-Length", "0"))


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        pytest.param([b"HTTP/2 200\r\n"], 200, "", id="http/2 has no reason"),
        pytest.param([b"HTTP/1.1 404 Not Found\r\n"], 404, "Not Found", id="reason of two words"),
    ],
)
def test_status_lines(lines: list[bytes], status: int, reason: str) -> None:
    head = parse_response_head(lines)

    assert head is not None
    assert (head.status, head.reason) == (status, reason)
