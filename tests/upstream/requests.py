"""Sends requests with a client of the test's own and reads complete bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import Exchange
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest


@contextmanager
def run_client() -> Iterator[UpstreamClient]:
    """Yield a client on the running event loop; close it afterwards."""
    client = UpstreamClient()
    try:
        yield client
    finally:
        client.close()


def make_request(
    url: str, *, ca_file: str | None = None, body: bytes = b"{}", connect_s: float = 5.0, idle_s: float = 20.0
) -> UpstreamRequest:
    """Return a POST request with a provider key."""
    return UpstreamRequest(
        method="POST",
        url=url,
        headers=(("Content-Type", "application/json"),),
        key_headers=(("x-api-key", Secret("provider-key")),),
        body=Payload(body),
        connect_timeout_s=connect_s,
        idle_timeout_s=idle_s,
        ca_file=ca_file,
    )


async def read_body(exchange: Exchange) -> bytes:
    """Read the response to its end; return its body."""
    pieces = []
    while data := await exchange.read():
        pieces.append(data)
    return b"".join(pieces)
