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
    OTHER_KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    ProxyProcess,
    mint,
    running_proxy,
)
from tornado_proxy.simulator import Simulator, running_simulator

MILLION = Decimal(1_000_000)
#: gpt-4o-mini, a million tokens: 0.15 in, 0.075 cached, 0.60 out.
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


async def ask(socket: ClientConnection, **frame: Any) -> dict[str, Any]:
    """The event that ends the answer to one frame."""
    await socket.send(json.dumps({"type": "response.create", **frame}))
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 20))
        if event["type"] in ("response.completed", "response.incomplete", "response.failed", "error"):
            return event


def records_of(proxy: ProxyProcess, socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    assert socket.response is not None
    return proxy.read_session_records(socket.response.headers["Llm-Proxy-Request-Id"], count)


def cost(usage: dict[str, Any]) -> Decimal:
    cached = usage["input_tokens_details"]["cached_tokens"]
    fresh = usage["input_tokens"] - cached
    tokens = fresh * Decimal("0.15") + cached * Decimal("0.075") + usage["output_tokens"] * Decimal("0.60")
    return tokens / MILLION


def test_each_response_of_a_connection_is_a_record_at_its_own_cost(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, list[dict[str, Any]]]:
        async with session(proxy) as socket:
            first = await ask(socket, model=MODEL, input="Hello")
            second = await ask(socket, response={"model": MODEL, "input": "And nested"})
            third = await ask(socket, model=MODEL, input="More", previous_response_id=second["response"]["id"])
            return socket, [first, second, third]

    socket, events = asyncio.run(talk())

    records = records_of(proxy, socket, 3)
    assert [event["type"] for event in events] == ["response.completed"] * 3
    assert [Decimal(one["subtotal"]) for one in records] == [cost(event["response"]["usage"]) for event in events]
    assert {(one["endpoint"], one["basis"], one["outcome"]) for one in records} == {
        ("/v1/responses", "reported", "completed")
    }


def test_a_frame_that_names_a_model_without_a_price_is_answered_and_the_connection_goes_on(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, dict[str, Any], dict[str, Any]]:
        async with session(proxy) as socket:
            refused = await ask(socket, model="gpt-unknown", input="Hello")
            return socket, refused, await ask(socket, model=MODEL, input="Hello")

    socket, refused, answered = asyncio.run(talk())

    assert (refused["type"], refused["status"], refused["error"]["code"]) == ("error", 400, "model_not_priced")
    assert answered["type"] == "response.completed"
    assert len(records_of(proxy, socket, 1)) == 1


def test_what_the_provider_turns_down_is_free(proxy: ProxyProcess) -> None:
    async def talk() -> ClientConnection:
        async with session(proxy) as socket:
            event = await ask(socket, model=MODEL, input="[[sim status=400]]")
            assert event["type"] == "error"
            return socket

    (record,) = records_of(proxy, asyncio.run(talk()), 1)

    assert (record["basis"], record["outcome"]) == ("free", "upstream_error")


def test_a_response_of_another_project_cannot_be_gone_on_with(proxy: ProxyProcess) -> None:
    other = mint(name="bob", project=OTHER_PROJECT, key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)

    async def talk() -> dict[str, Any]:
        async with session(proxy) as mine, session(proxy, other) as theirs:
            made = await ask(mine, model=MODEL, input="Hello")
            return await ask(theirs, model=MODEL, input="Hi", previous_response_id=made["response"]["id"])

    refused = asyncio.run(talk())

    assert (refused["type"], refused["status"], refused["error"]["code"]) == ("error", 404, "not_found")


def test_a_provider_that_breaks_off_leaves_an_estimate(proxy: ProxyProcess) -> None:
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
    (record,) = records_of(proxy, socket, 1)
    assert (record["basis"], record["outcome"]) == ("estimated", "upstream_broken")
    assert Decimal(record["total"]) > 0
