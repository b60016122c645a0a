"""A base URL that was set over REST leads to public addresses only, however the address is written or found."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from tests.upstream.requests import make_request, read_body, run_client
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.domain.errors import UpstreamUnreachable
from tornado_proxy.upstream.address_guard import find_literal_address, is_public
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.websocket.connection import WebSocketRequest, connect

MakeClient = Callable[[], UpstreamClient]


@pytest.fixture
def make_client(io_loop: object) -> Iterator[MakeClient]:
    """Yield a function that creates a client on the running loop; close its clients after the test."""
    with contextlib.ExitStack() as clients:
        yield lambda: clients.enter_context(run_client())


@pytest.mark.parametrize(
    "address", ["104.18.6.192", "8.8.8.8", "2606:4700::6812:6c0", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_address_is_accepted(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("127.9.9.9", id="loopback, another one"),
        pytest.param("::1", id="loopback v6"),
        pytest.param("0.0.0.0", id="unspecified"),  # noqa: S104  # compared, not bound
        pytest.param("::", id="unspecified v6"),
        pytest.param("10.1.2.3", id="private 10"),
        pytest.param("172.16.0.1", id="private 172.16"),
        pytest.param("192.168.1.1", id="private 192.168"),
        pytest.param("fd00:ec2::254", id="unique local: metadata of EC2"),
        pytest.param("169.254.169.254", id="link-local: metadata"),
        pytest.param("fe80::1", id="link-local v6"),
        pytest.param("fe80::1%eth0", id="link-local v6 with a zone"),
        pytest.param("fec0::1", id="site-local v6"),
        pytest.param("100.64.0.1", id="CGNAT"),
        pytest.param("100.100.100.200", id="CGNAT: metadata of Alibaba"),
        pytest.param("168.63.129.16", id="platform service of Azure"),
        pytest.param("192.0.0.192", id="metadata of Oracle"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("ff0e::1", id="multicast v6"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("203.0.113.7", id="documentation"),
        pytest.param("198.18.0.1", id="benchmarking"),
        pytest.param("::ffff:127.0.0.1", id="IPv4-mapped loopback"),
        pytest.param("::ffff:a9fe:a9fe", id="IPv4-mapped metadata"),
        pytest.param("::127.0.0.1", id="IPv4-compatible loopback"),
        pytest.param("64:ff9b::7f00:1", id="NAT64 loopback"),
        pytest.param("64:ff9b::a9fe:a9fe", id="NAT64 metadata"),
        pytest.param("64:ff9b:1::808:808", id="NAT64 of a local network"),
        pytest.param("2002:7f00:1::", id="6to4 loopback"),
        pytest.param("2001:0:7f00:1::", id="Teredo"),
        pytest.param("not an address", id="text"),
    ],
)
def test_other_address_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f000001", "0x7f.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.1."],
)
def test_every_notation_of_an_address_is_read(host: str) -> None:
    assert find_literal_address(host) == "127.0.0.1"


@pytest.mark.parametrize("host", ["api.openai.com", "127.0.0.1.example.com", "localhost", "", "0x7f000001.example"])
def test_name_is_no_address(host: str) -> None:
    assert find_literal_address(host) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost", "[::ffff:127.0.0.1]"])
@pytest.mark.gen_test
async def test_http_request_does_not_connect_to_a_loopback_address(host: str, make_client: MakeClient) -> None:
    client, connections = make_client(), list[bytes]()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("a request arrived")

    async with run_provider(respond, heads=connections) as url:
        request = make_request(url.replace("127.0.0.1", host))
        for _ in range(2):
            with pytest.raises(UpstreamUnreachable, match="not public") as raised:
                await client.start(replace(request, public_only=True)).head()
            assert not raised.value.request_sent

    assert connections == []


@pytest.mark.gen_test
async def test_http_request_does_not_use_a_loopback_connection_of_another_request(make_client: MakeClient) -> None:
    client, heads = make_client(), list[bytes]()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            heads.append(await reader.readuntil(b"\r\n\r\n"))

    async with run_provider(respond, heads=heads) as url:
        assert await read_body(client.start(make_request(url))) == b"ok"
        with pytest.raises(UpstreamUnreachable, match="not public"):
            await client.start(replace(make_request(url), public_only=True)).head()
        # The handle of the refused request serves others again.
        assert await read_body(client.start(make_request(url))) == b"ok"

    assert len(heads) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.gen_test
async def test_websocket_does_not_connect_to_a_loopback_address(host: str) -> None:
    connections: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("a request arrived")

    async with run_provider(respond, heads=connections) as url:
        request = WebSocketRequest(
            url.replace("127.0.0.1", host) + "/v1/realtime", (), (), (), 1 << 20, 5.0, public_only=True
        )
        with pytest.raises(UpstreamUnreachable, match="not public") as raised:
            await connect(request)

    assert connections == []
    assert not raised.value.request_sent
