"""Requests of different kinds with one easy handle, which keeps the options of the request before."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from tests.upstream.requests import make_request, read_body, run_client
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest

KEY = (("x-api-key", Secret("provider-key")),)
OTHER_KEY = (("Authorization", Secret("Bearer other-key")),)
JSON = ("Content-Type", "application/json")
LABEL = ("X-Label", "one")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, and the request line, headers and body that the provider must receive."""

    request: UpstreamRequest
    line: bytes
    headers: set[bytes]
    body: bytes = b""


def post(
    url: str, headers: tuple[tuple[str, str], ...], key: tuple[tuple[str, Secret], ...], body: bytes
) -> UpstreamRequest:
    return replace(make_request(url), headers=headers, key_headers=key, body=Payload(body))


def make_requests(url: str) -> list[Sent]:
    host = b"Host: " + url.removeprefix("http://").encode()
    json, key = b"Content-Type: application/json", b"x-api-key: provider-key"
    other_key, label = b"Authorization: Bearer other-key", b"X-Label: one"
    two, five = b"Content-Length: 2", b"Content-Length: 5"
    a, b = f"{url}/a", f"{url}/b"
    get = replace(post(a, (LABEL,), KEY, b""), method="GET", body=None)
    return [
        Sent(post(a, (JSON,), KEY, b"{}"), b"POST /a HTTP/1.1", {host, json, key, two}, b"{}"),
        Sent(post(a, (JSON,), KEY, b"[]"), b"POST /a HTTP/1.1", {host, json, key, two}, b"[]"),
        Sent(post(a, (JSON,), OTHER_KEY, b"[]"), b"POST /a HTTP/1.1", {host, json, other_key, two}, b"[]"),
        Sent(post(a, (JSON, LABEL), KEY, b"[1,2]"), b"POST /a HTTP/1.1", {host, json, label, key, five}, b"[1,2]"),
        Sent(get, b"GET /a HTTP/1.1", {host, label, key}),
        Sent(replace(get, method="DELETE"), b"DELETE /a HTTP/1.1", {host, label, key}),
        Sent(post(b, (), KEY, b"[3,4]"), b"POST /b HTTP/1.1", {host, key, five}, b"[3,4]"),
        Sent(replace(post(b, (), KEY, b""), body=None), b"POST /b HTTP/1.1", {host, key, b"Content-Length: 0"}),
        Sent(post(a, (JSON,), KEY, b"{}"), b"POST /a HTTP/1.1", {host, json, key, two}, b"{}"),
    ]  # fmt: skip


@pytest.mark.gen_test
@pytest.mark.usefixtures("io_loop")
async def test_each_request_has_only_its_own_headers_address_and_body() -> None:
    received: list[tuple[bytes, set[bytes], bytes]] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = heads[0]
        while True:
            line, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
            length = sum(int(header[16:]) for header in headers if header.startswith(b"Content-Length: "))
            received.append((line, set(headers), await reader.readexactly(length)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            head = await reader.readuntil(b"\r\n\r\n")

    heads: list[bytes] = []
    async with run_provider(respond, heads) as url:
        with run_client() as upstream:
            sent = make_requests(url)
            for expected in sent:
                assert await asyncio.wait_for(read_body(upstream.start(expected.request)), 5) == b"ok"

    assert len(heads) == 1, "all requests use one connection"
    assert received == [(expected.line, expected.headers, expected.body) for expected in sent]


class Text(str):
    """A text that tells when it is freed."""

    __slots__ = ("__weakref__",)


@pytest.mark.gen_test
@pytest.mark.usefixtures("io_loop")
async def test_idle_handle_keeps_neither_long_headers_nor_a_long_url() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    text = Text("x" * 5000)
    header_freed = weakref.ref(text)
    heads: list[bytes] = []
    async with run_provider(respond, heads) as url:
        with run_client() as upstream:
            target = Text(f"{url}/?{text}")
            url_freed = weakref.ref(target)
            assert await read_body(upstream.start(post(target, (("X-Long", text),), KEY, b"{}"))) == b"ok"
            del text, target
            assert (header_freed(), url_freed()) == (None, None)
            assert await read_body(upstream.start(make_request(f"{url}/short"))) == b"ok"

    assert heads[0].startswith(b"POST /?" + b"x" * 5000)
    assert b"X-Long: " + b"x" * 5000 in heads[0]
    assert heads[1].startswith(b"POST /short ")
