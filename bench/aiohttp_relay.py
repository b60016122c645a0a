"""A plain relay on aiohttp without authentication, metering or ledger: the yardstick for relays in Python.

python -m bench.aiohttp_relay PORT http://PROVIDER
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

_PROVIDER_KEY = "sk-provider-of-the-benchmark"

#: Headers of the connection (RFC 9110 section 7.6.1), and headers that the relay sets itself.
_DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization", "upgrade"}

_SESSION = web.AppKey("session", aiohttp.ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    """Send the request to the provider with the provider's key, and relay the response."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await relay_socket(request)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
    headers["Authorization"] = f"Bearer {_PROVIDER_KEY}"
    url = sys.argv[2] + request.path_qs
    async with request.app[_SESSION].request(
        request.method, url, headers=headers, data=await request.read(), allow_redirects=False
    ) as upstream:
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
        for name, value in upstream.headers.items():
            if name.lower() not in _DROPPED:
                response.headers.add(name, value)
        # Without a Content-Length aiohttp uses the chunked coding.
        response.content_length = upstream.content_length
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def relay_socket(request: web.Request) -> web.WebSocketResponse:
    """Connect to the provider, then relay messages in both directions until one side closes."""
    headers = {"Authorization": f"Bearer {_PROVIDER_KEY}"}
    client = web.WebSocketResponse(compress=False)
    async with request.app[_SESSION].ws_connect(sys.argv[2] + request.path_qs, headers=headers) as provider:
        await client.prepare(request)
        pumps = [asyncio.ensure_future(pump(provider, client)), asyncio.ensure_future(pump(client, provider))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump_task in pumps:
            pump_task.cancel()
        await client.close()
    return client


async def pump(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    """Relay messages until `source` closes."""
    async for message in source:
        if message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)


async def session(app: web.Application) -> AsyncIterator[None]:
    """Open the client session of the app.  aiohttp's default of 100 connections would block all further streams."""
    # No total timeout, which would cut long streams; auto_decompress would change the bytes of a response.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout, auto_decompress=False
    ) as client:
        app[_SESSION] = client
        yield


def main() -> None:
    """Serve until the process is killed."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", relay)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=lambda _: None)


if __name__ == "__main__":
    main()
