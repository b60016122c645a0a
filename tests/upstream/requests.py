"""How these tests ask a provider: a client of their own, requests with its authority's certificate, whole bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import Exchange
from tornado_proxy.upstream.http.request import Payload, UpstreamRequest


@contextmanager
def run_client() -> Iterator[UpstreamClient]:
    """A client inside the running loop."""
    client = UpstreamClient(force_instance=True)
    try:
        yield client
    finally:
        client.close()


def make_request(
    url: str, *, ca_file: str | None = None, body: bytes = b"{}", connect_s: float = 5.0, idle_s: float = 20.0
) -> UpstreamRequest:
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
    """The body, to its proper end."""
    await exchange.head()
    pieces = []
    while data := await exchange.read():
        pieces.append(data)
    return b"".join(pieces)
