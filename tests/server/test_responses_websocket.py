"""The Responses API over a WebSocket, through the real server to the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.harness import (
    OPENAI_KEY,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tests.server.realtime import read_session
from tornado_proxy.simulator import Simulator, running_simulator

MILLION = Decimal(1_000_000)
#: USD per million tokens: 0.15 in, 0.075 cached, 0.60 out.
MODEL = "gpt-4o-mini"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url,
        running_proxy(tmp_path_factory.mktemp("responses"), url) as running,
    ):
        yield running


@contextlib.asynccontextmanager
async def session(proxy: ProxyProcess, token: str | None = None) -> AsyncIterator[ClientConnection]:
    url = f"ws{proxy.base_url.removeprefix('http')}/openai/v1/responses"
    headers = {"Authorization": f"Bearer {token or mint()}", "OpenAI-Beta": "responses_websockets=2026-02-06"}
    async with websockets.connect(url, additional_headers=headers, max_size=None) as socket:
        yield socket


async def create_response(socket: ClientConnection, **frame: Any) -> dict[str, Any]:
    """Send a `response.create`; return the event that ends its response."""
    await socket.send(json.dumps({"type": "response.create", **frame}))
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT_S))
        if event["type"] in ("response.completed", "response.incomplete", "response.failed", "error"):
            return event


def cost(usage: dict[str, Any]) -> Decimal:
    cached = usage["input_tokens_details"]["cached_tokens"]
    fresh = usage["input_tokens"] - cached
    tokens = fresh * Decimal("0.15") + cached * Decimal("0.075") + usage["output_tokens"] * Decimal("0.60")
    return Decimal(tokens / MILLION)


def test_large_frames_are_admitted_and_refused_in_their_order(proxy: ProxyProcess) -> None:
    text = "word " * 40_000

    async def talk() -> tuple[ClientConnection, list[dict[str, Any]]]:
        async with session(proxy) as socket:
            first = await create_response(socket, model=MODEL, input=text)
            second = await create_response(socket, model="no-such-model", input=text)
            third = await create_response(socket, model=MODEL, input="short")
            return socket, [first, second, third]

    socket, events = asyncio.run(talk())

    assert [event["type"] for event in events] == ["response.completed", "error", "response.completed"]
    assert events[1]["error"]["code"] == "model_not_priced"
    assert len(read_session(proxy, socket, 2)) == 2


def test_each_response_of_a_connection_has_a_record_with_its_own_cost(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, list[dict[str, Any]]]:
        async with session(proxy) as socket:
            first = await create_response(socket, model=MODEL, input="Hello")
            second = await create_response(socket, response={"model": MODEL, "input": "And nested"})
            third = await create_response(
                socket, model=MODEL, input="More", previous_response_id=second["response"]["id"]
            )
            return socket, [first, second, third]

    socket, events = asyncio.run(talk())

    records = read_session(proxy, socket, 3)
    assert [event["type"] for event in events] == ["response.completed"] * 3
    assert [Decimal(record["subtotal"]) for record in records] == [cost(event["response"]["usage"]) for event in events]
    assert {(record["endpoint"], record["basis"], record["outcome"]) for record in records} == {
        ("/v1/responses", "reported", "completed")
    }


def test_frame_with_an_unpriced_model_gets_an_error_and_the_connection_stays_open(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, dict[str, Any], dict[str, Any]]:
        async with session(proxy) as socket:
            rejected = await create_response(socket, model="gpt-unknown", input="Hello")
            return socket, rejected, await create_response(socket, model=MODEL, input="Hello")

    socket, rejected, completed = asyncio.run(talk())

    assert (rejected["type"], rejected["status"], rejected["error"]["code"]) == ("error", 400, "model_not_priced")
    assert completed["type"] == "response.completed"
    assert len(read_session(proxy, socket, 1)) == 1


def test_request_that_the_provider_rejects_is_free(proxy: ProxyProcess) -> None:
    async def talk() -> ClientConnection:
        async with session(proxy) as socket:
            event = await create_response(socket, model=MODEL, input="[[sim status=400]]")
            assert event["type"] == "error"
            return socket

    (record,) = read_session(proxy, asyncio.run(talk()), 1)

    assert (record["basis"], record["outcome"]) == ("free", "upstream_error")


def test_response_of_another_project_cannot_be_continued(proxy: ProxyProcess) -> None:
    other = mint_for_other_project("bob")

    async def talk() -> dict[str, Any]:
        async with session(proxy) as mine, session(proxy, other) as theirs:
            made = await create_response(mine, model=MODEL, input="Hello")
            return await create_response(theirs, model=MODEL, input="Hi", previous_response_id=made["response"]["id"])

    rejected = asyncio.run(talk())

    assert (rejected["type"], rejected["status"]) == ("error", 404)
    assert rejected["error"]["type"] == "invalid_request_error"
    assert rejected["error"]["code"] == "previous_response_not_found"
    assert rejected["error"]["param"] == "previous_response_id"


def test_provider_that_closes_within_a_response_leaves_an_estimate(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, int | None]:
        async with session(proxy) as socket:
            request = {"model": MODEL, "input": "[[sim tokens=60 cut=after:20]]"}
            await socket.send(json.dumps({"type": "response.create", **request}))
            with contextlib.suppress(websockets.ConnectionClosedError):
                async for _ in socket:
                    pass
            return socket, socket.close_code

    socket, code = asyncio.run(talk())

    assert code == 1011
    (record,) = read_session(proxy, socket, 1)
    assert (record["basis"], record["outcome"]) == ("estimated", "upstream_broken")
    assert Decimal(record["total"]) > 0
