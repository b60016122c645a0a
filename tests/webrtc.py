"""WebRTC over loopback with aiortc: a peer that answers the simulator's realtime calls, and a client that starts one.

The media and the data channel of a call do not pass the proxy: it sees the SDP exchange and its own sideband only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from tests.harness import TIMEOUT_S
from tornado_proxy.simulator.object_stores import RealtimeCall

#: The data channel of OpenAI's own examples (guide "Realtime API with WebRTC").
CHANNEL = "oai-events"


def new_connection() -> RTCPeerConnection:
    """Return a connection without STUN servers, which would be other hosts."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


def use_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ICE use loopback and nothing else: aioice leaves it out, and a machine for tests may have nothing else."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


class CallPeer:
    """The provider's side of realtime calls: give `answer` to a Simulator as `answer_call`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    async def answer(self, offer: str, call: RealtimeCall) -> str:
        """Return the SDP answer; events pass between the data channel and the call until either ends."""
        connection = new_connection()
        connection.on("datachannel", lambda channel: self._attach(channel, call))
        connection.on("connectionstatechange", lambda: self._end(connection, call))
        call.on_end.append(lambda: self._spawn(connection.close()))
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return connection.localDescription.sdp

    def _attach(self, channel: RTCDataChannel, call: RealtimeCall) -> None:
        in_turn = asyncio.Lock()

        async def send(data: bytes) -> None:
            if channel.readyState == "open":
                channel.send(data.decode())

        async def receive(message: str) -> None:
            async with in_turn:
                assert call.handle is not None, "the proxy connects its sideband before it returns the answer"
                await call.handle(json.loads(message))

        channel.on("message", lambda message: self._spawn(receive(message)))
        channel.send(call.created.decode())
        call.listeners.append(send)

    def _end(self, connection: RTCPeerConnection, call: RealtimeCall) -> None:
        if connection.connectionState in ("closed", "failed"):
            call.hang_up()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class CallClient:
    """The page's side of one realtime call, for use within one event loop."""

    def __init__(self) -> None:
        self._connection = new_connection()
        self._channel = self._connection.createDataChannel(CHANNEL)
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._closed = asyncio.Event()
        self._channel.on("message", lambda message: self._events.put_nowait(json.loads(message)))
        self._channel.on("close", self._closed.set)

    async def start(self, exchange: Callable[[str], Awaitable[str]]) -> None:
        """Start the call; `exchange` sends the SDP offer and returns the answer."""
        await self._connection.setLocalDescription(await self._connection.createOffer())
        answer = await exchange(self._connection.localDescription.sdp)
        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def send(self, kind: str, **members: Any) -> None:
        """Send an event over the data channel."""
        self._channel.send(json.dumps({"type": kind, **members}))

    async def receive(self, kind: str) -> dict[str, Any]:
        """Return the next event of that type; skip others."""
        async with asyncio.timeout(TIMEOUT_S):
            while (event := await self._events.get())["type"] != kind:
                pass
        return event

    async def wait_closed(self) -> None:
        """Wait until the other side has ended the call."""
        await asyncio.wait_for(self._closed.wait(), TIMEOUT_S)
        await self._connection.close()

    async def close(self) -> None:
        """End the call, as a page does that is closed."""
        await self._connection.close()
