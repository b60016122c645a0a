"""Responses over a WebSocket that are steered, share lanes or fail: each has a record of its own, never free."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.server.realtime import read_session
from tests.server.websocket_provider import ScriptedSessions, scripted_sessions

USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
CREATE = {"type": "response.create", "model": "gpt-4o-mini", "input": "hi"}
#: 1000 x 0.15 and 100 x 0.60 per million tokens.
COST = Decimal("0.00021")


def event(kind: str, response_id: str, *, lane: str | None = None, **members: Any) -> str:
    response = {"id": response_id, "model": "gpt-4o-mini", **members}
    return json.dumps({"type": kind, "response": response, **({} if lane is None else {"stream_id": lane})})


@pytest.fixture(scope="module")
def sessions() -> Iterator[ScriptedSessions]:
    with scripted_sessions() as running:
        yield running


async def send_and_receive(proxy: ProxyProcess, *frames: dict[str, Any], events: int) -> ClientConnection:
    """Send `frames` on one connection and receive `events` events; return the closed connection."""
    url = f"ws{proxy.base_url.removeprefix('http')}/openai/v1/responses"
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {mint()}"}) as socket:
        for frame in frames:
            await socket.send(json.dumps(frame))
        for _ in range(events):
            await asyncio.wait_for(socket.recv(), TIMEOUT_S)
    return socket


def run(
    sessions: ScriptedSessions, provider_events: list[str], *frames: dict[str, Any], records: int
) -> list[dict[str, Any]]:
    """Let a provider answer the first frame with `provider_events`; return the records of the session."""

    async def speak(connection: ServerConnection) -> None:
        for _ in frames:
            await connection.recv()
        for provider_event in provider_events:
            await connection.send(provider_event)
        with contextlib.suppress(websockets.ConnectionClosed):
            await connection.recv()

    async def act(proxy: ProxyProcess) -> list[dict[str, Any]]:
        socket = await send_and_receive(proxy, *frames, events=len(provider_events))
        return await asyncio.to_thread(read_session, proxy, socket, records)

    found: list[dict[str, Any]] = sessions.run(speak, act)
    return found


def test_steered_successor_has_a_record_and_belongs_to_its_project(sessions: ScriptedSessions) -> None:
    records = run(
        sessions,
        [
            event("response.created", "resp_s1"),
            event("response.incomplete", "resp_s1", usage=USAGE, incomplete_details={"reason": "steered"}),
            event("response.created", "resp_s2", previous_response_id="resp_s1"),
            event("response.completed", "resp_s2", usage=USAGE),
        ],
        CREATE,
        records=2,
    )

    assert [(record["outcome"], record["basis"]) for record in records] == [("completed", "reported")] * 2
    assert [Decimal(record["subtotal"]) for record in records] == [COST, COST]

    # A frame that continues another project's response, or an unknown one, never reaches the provider.
    continued = [event("response.created", "resp_s3"), event("response.completed", "resp_s3", usage=USAGE)]
    assert len(run(sessions, continued, {**CREATE, "previous_response_id": "resp_s2"}, records=1)) == 1


def test_lanes_have_one_record_each_at_their_own_model(sessions: ScriptedSessions) -> None:
    records = run(
        sessions,
        [
            event("response.created", "resp_a", lane="a", model="gpt-5.4"),
            event("response.created", "resp_b", lane="b"),
            event("response.completed", "resp_b", lane="b", usage=USAGE),
            event("response.completed", "resp_a", lane="a", model="gpt-5.4", usage=USAGE),
        ],
        {**CREATE, "stream_id": "a", "model": "gpt-5.4"},
        {**CREATE, "stream_id": "b"},
        records=2,
    )

    # gpt-5.4: 1000 x 2.50 and 100 x 15 per million tokens.
    costs = {record["model"]: Decimal(record["subtotal"]) for record in records}
    assert costs == {"gpt-5.4": Decimal("0.004"), "gpt-4o-mini": COST}
    assert len(records) == 2


def test_error_after_output_leaves_an_estimate_at_once(sessions: ScriptedSessions) -> None:
    deltas = [json.dumps({"type": "response.output_text.delta", "delta": "x" * 40}) for _ in range(30)]

    (record,) = run(
        sessions,
        [event("response.created", "resp_e"), *deltas, '{"type":"error","error":{"message":"overloaded"}}'],
        CREATE,
        records=1,
    )

    assert (record["outcome"], record["basis"]) == ("upstream_error", "estimated")
    assert Decimal(record["subtotal"]) > 0


def test_frame_of_an_unknown_type_never_reaches_the_provider(sessions: ScriptedSessions) -> None:
    received: list[str] = []

    async def speak(connection: ServerConnection) -> None:
        received.append(str(await connection.recv()))
        await connection.send(event("response.created", "resp_u"))
        await connection.send(event("response.completed", "resp_u", usage=USAGE))
        with contextlib.suppress(websockets.ConnectionClosed):
            received.append(str(await connection.recv()))

    async def act(proxy: ProxyProcess) -> list[dict[str, Any]]:
        # One rejection by the proxy and two events of the provider.
        socket = await send_and_receive(proxy, {"type": "nonsense"}, CREATE, events=3)
        return await asyncio.to_thread(read_session, proxy, socket, 1)

    (record,) = sessions.run(speak, act)

    assert [json.loads(frame)["type"] for frame in received] == ["response.create"]
    assert Decimal(record["subtotal"]) == COST
