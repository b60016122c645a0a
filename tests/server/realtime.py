"""A client of realtime sessions: connect, send events, wait for events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from tests.harness import TIMEOUT_S, ProxyProcess, mint

MODEL = "gpt-realtime"


def websocket_url(proxy: ProxyProcess, path: str = "/openai/v1/realtime", query: str = f"model={MODEL}") -> str:
    """Return the URL of a WebSocket route of the proxy."""
    return f"ws{proxy.base_url.removeprefix('http')}{path}" + (f"?{query}" if query else "")


@contextlib.asynccontextmanager
async def connect_session(
    proxy: ProxyProcess, query: str = f"model={MODEL}", token: str | None = None, max_queue: int | None = None
) -> AsyncIterator[ClientConnection]:
    """Open a realtime session.

    A client of websockets with a full queue of messages stops reading, and close() then takes its timeout of 10 s; so
    the queue has no limit unless a test sets one.
    """
    headers = {"Authorization": f"Bearer {token or mint()}"}
    async with websockets.connect(
        websocket_url(proxy, query=query),
        additional_headers=headers,
        max_size=None,
        max_queue=max_queue,
        ping_interval=None,
    ) as socket:
        yield socket


async def fetch_rejection(url: str, **options: Any) -> websockets.Response:
    """Return the HTTP response of an upgrade that is rejected; fail if it is accepted."""
    try:
        async with websockets.connect(url, **options):
            pass
    except websockets.InvalidStatus as rejection:
        return rejection.response
    raise AssertionError("the upgrade was accepted")


async def send(socket: ClientConnection, kind: str, **members: Any) -> None:
    """Send an event."""
    await socket.send(json.dumps({"type": kind, **members}))


async def send_text(socket: ClientConnection, text: str) -> None:
    """Send a user's message and ask for a response in text."""
    content = [{"type": "input_text", "text": text}]
    await send(socket, "conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await send(socket, "response.create", response={"output_modalities": ["text"]})


async def next_event(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next event of that type; skip others."""
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
        if event["type"] == kind:
            return event


async def wait_closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until the server closes the session; return the close code and the reason.  Events are skipped."""
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in socket:
                pass
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


def session_id(socket: ClientConnection) -> str:
    """Return the session's id, which the proxy sends as a header of the upgrade."""
    assert socket.response is not None
    return socket.response.headers["Llm-Proxy-Request-Id"]


def read_session(proxy: ProxyProcess, socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the records of a session; wait until there are `count`."""
    return proxy.read_session_records(session_id(socket), count)
