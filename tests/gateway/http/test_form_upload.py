"""The end of a form is sent when its response is relayed, and never if it is not."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from tests.upstream.requests import make_request, read_body, run_client
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.domain.errors import ExchangeAborted
from tornado_proxy.gateway.http.form_upload import StartedUpstream
from tornado_proxy.upstream.http.streamed_payload import StreamedPayload

_TIMEOUT_S = 20


@pytest.mark.parametrize("is_relayed", [True, False])
@pytest.mark.gen_test
async def test_end_of_a_form_is_sent_only_when_its_response_is_relayed(is_relayed: bool) -> None:
    received: list[bytes] = []
    ended = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readexactly(5))
        received.append(await reader.read(100))
        ended.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with run_provider(respond) as url:
        with run_client() as client:
            payload = StreamedPayload(8, lambda: None)
            request = replace(make_request(url), body=payload)
            exchange = client.start(request)
            payload.add(b"begin")
            async with asyncio.timeout(_TIMEOUT_S):
                while not received:  # noqa: ASYNC110  # the other side of a socket
                    await asyncio.sleep(0.01)
            upstream = StartedUpstream(exchange, payload, b"end")
            if is_relayed:
                assert upstream.start(request) is exchange
                upstream.close()
                assert await read_body(exchange) == b"ok"
            else:
                upstream.close()
                with pytest.raises(ExchangeAborted) as aborted:
                    await exchange.head()
                assert not aborted.value.request_sent
            await asyncio.wait_for(ended.wait(), _TIMEOUT_S)

    assert received == [b"begin", b"end" if is_relayed else b""]
