"""Every endpoint of the route table, complete, cut by the provider or left by the client: `local` and `serve` agree."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.harness import TIMEOUT_S, ProxyProcess, wait_until
from tests.local.conftest import BILL
from tests.local.endpoint_requests import FREE, MESSAGE, OF_A_BATCH, OF_A_RESPONSE, STREAMS, WHOLE, EndpointRequest
from tests.local.local_proxy import LocalProxy
from tests.server.test_realtime_calls import OFFER
from tornado_proxy.providers.contract import HttpEndpoint
from tornado_proxy.providers.registry import PROVIDERS

Chain = tuple[ProxyProcess, LocalProxy]


@pytest.fixture(scope="module")
def client(chain: Chain) -> Iterator[httpx.Client]:
    local = chain[1]
    with httpx.Client(base_url=local.base_url, headers=local.headers, timeout=TIMEOUT_S) as running:
        yield running


def read_bills(chain: Chain, response: httpx.Response) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the bills of a request in both ledgers, that of the server first."""
    request_id = response.headers["llm-proxy-request-id"]
    hosted = chain[0].read_record(request_id)
    (here,) = chain[1].read_records(1, request_id=request_id)
    return {name: hosted[name] for name in BILL}, {name: here[name] for name in BILL}


@pytest.mark.parametrize(
    "request_", [*WHOLE.values(), *STREAMS.values()], ids=[*WHOLE, *(f"{n} stream" for n in STREAMS)]
)
def test_complete_response_costs_the_same(chain: Chain, client: httpx.Client, request_: EndpointRequest) -> None:
    response = request_.send(client)

    hosted, here = read_bills(chain, response)
    assert response.status_code == 200
    assert here == hosted
    assert here["basis"] == request_.basis
    assert Decimal(here["total"]) > 0


@pytest.mark.parametrize("events", [2, 5])
@pytest.mark.parametrize("request_", STREAMS.values(), ids=STREAMS)
def test_stream_that_the_provider_cuts_costs_the_same(
    chain: Chain, client: httpx.Client, request_: EndpointRequest, events: int
) -> None:
    response = request_.send(client, prompt=f"[[sim tokens=60 cut=after:{events}]] go")

    hosted, here = read_bills(chain, response)
    assert here == hosted
    assert Decimal(here["total"]) > 0


@pytest.mark.parametrize("request_", STREAMS.values(), ids=STREAMS)
def test_stream_that_the_client_leaves_costs_the_same(
    chain: Chain, client: httpx.Client, request_: EndpointRequest
) -> None:
    response = request_.send(client, prompt="[[sim tokens=40 delay-ms=5]] go", leave=True)

    hosted, here = read_bills(chain, response)
    assert here == hosted
    assert (here["basis"], Decimal(here["total"]) > 0) == ("reported", True)


def test_body_that_the_provider_cuts_costs_the_same(chain: Chain, client: httpx.Client) -> None:
    for name in ("chat", "responses", "message", "embeddings"):
        hosted, here = read_bills(chain, WHOLE[name].send(client, prompt="[[sim tokens=60 cut=after:40]] go"))

        assert here == hosted, name
        assert (here["basis"], Decimal(here["total"]) > 0) == ("estimated", True), name


@pytest.mark.parametrize("request_", FREE.values(), ids=FREE)
def test_free_request_is_free_on_both_sides(chain: Chain, client: httpx.Client, request_: EndpointRequest) -> None:
    response = request_.send(client)

    hosted, here = read_bills(chain, response)
    assert response.status_code == 200
    assert here == hosted
    assert (here["basis"], Decimal(here["total"])) == ("free", Decimal(0))


def test_model_by_its_name_is_free_on_both_sides(chain: Chain, client: httpx.Client) -> None:
    for path, model in (("/openai/v1/models", "gpt-4o-mini"), ("/anthropic/v1/models", "claude-haiku-4-5")):
        response = client.get(f"{path}/{model}")

        hosted, here = read_bills(chain, response)
        assert (response.status_code, response.json()["id"]) == (200, model)
        assert here == hosted


def test_text_completion_has_no_price_on_both_sides(chain: Chain, client: httpx.Client) -> None:
    body = {"model": "claude-2.1", "max_tokens_to_sample": 9, "prompt": "\n\nHuman: hi\n\nAssistant:"}

    refused = client.post("/anthropic/v1/complete", json=body)

    (here,) = chain[1].read_records(1, endpoint="/v1/complete")
    assert (refused.status_code, "no price" in refused.text) == (400, True)
    assert (here["basis"], Decimal(here["total"])) == ("free", Decimal(0))
    assert not [record for record in chain[0].read_records() if record["endpoint"] == "/v1/complete"]


def check_free(chain: Chain, client: httpx.Client, requests: list[EndpointRequest], path_id: str) -> None:
    for request in requests:
        response = request.send(client, path_id=path_id)

        hosted, here = read_bills(chain, response)
        assert response.status_code == 200, (request, response.status_code)
        assert here == hosted
        assert here["basis"] == "free"


def test_requests_for_a_response_by_its_id_are_free(chain: Chain, client: httpx.Client) -> None:
    body = {"model": "gpt-5-mini", "input": "[[sim tokens=30]] go", "background": True}
    created = client.post("/openai/v1/responses", json=body)

    check_free(chain, client, OF_A_RESPONSE, created.json()["id"])

    wait_until(lambda: read_bills(chain, created)[1]["basis"] != "pending", "the settlement")
    hosted, here = read_bills(chain, created)
    assert here == hosted


def test_requests_for_a_batch_by_its_id_are_free(chain: Chain, client: httpx.Client) -> None:
    created = create_batch(client)
    batch = f"/anthropic/v1/messages/batches/{created.json()['id']}"
    wait_until(lambda: client.get(batch).json()["processing_status"] == "ended", "the end of the batch")

    check_free(chain, client, OF_A_BATCH, created.json()["id"])

    hosted, here = read_bills(chain, created)
    assert here == hosted
    assert (here["basis"], Decimal(here["total"]) > 0) == ("reported", True)


def test_cancelled_batch_costs_the_same(chain: Chain, client: httpx.Client) -> None:
    created = create_batch(client)
    cancel = EndpointRequest("/v1/messages/batches/{id}/cancel", {}, "free")

    check_free(chain, client, [cancel], created.json()["id"])

    wait_until(lambda: "pending" not in {bill["basis"] for bill in read_bills(chain, created)}, "the settlement")
    hosted, here = read_bills(chain, created)
    assert here == hosted


def create_batch(client: httpx.Client) -> httpx.Response:
    message = json.loads(json.dumps(MESSAGE).replace("PROMPT", "hi"))
    requests = [{"custom_id": str(number), "params": message} for number in range(3)]
    return client.post("/anthropic/v1/messages/batches", json={"requests": requests})


async def answer(socket: ClientConnection, *events: dict[str, Any], until: str) -> dict[str, Any]:
    """Send events; return the next one of the type `until`."""
    for event in events:
        await socket.send(json.dumps(event))
    async with asyncio.timeout(TIMEOUT_S):
        async for frame in socket:
            received: dict[str, Any] = json.loads(frame)
            if received["type"] == until:
                return received
    raise AssertionError(f"no {until} before the end of the session")


def realtime_text(text: str) -> list[dict[str, Any]]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return [
        {"type": "conversation.item.create", "item": item},
        {"type": "response.create", "response": {"output_modalities": ["text"]}},
    ]


async def talk_to_responses(socket: ClientConnection) -> None:
    for _ in range(2):
        await answer(
            socket, {"type": "response.create", "model": "gpt-5-mini", "input": "hi"}, until="response.completed"
        )


async def leave_responses(socket: ClientConnection) -> None:
    prompt = "[[sim tokens=60 delay-ms=5]] go"
    await answer(
        socket,
        {"type": "response.create", "model": "gpt-5-mini", "input": prompt},
        until="response.output_text.delta",
    )


async def talk_in_realtime(socket: ClientConnection) -> None:
    for _ in range(2):
        await answer(socket, *realtime_text("hi"), until="response.done")


async def cut_realtime(socket: ClientConnection) -> None:
    await answer(socket, *realtime_text("[[sim tokens=60 cut=after:6]] go"), until="never")


async def translate(socket: ClientConnection) -> None:
    second = "A" * 64_000  # 48,000 bytes of silence in base64: one second of PCM at 24 kHz
    await answer(
        socket,
        {"type": "session.update", "session": {"audio": {"output": {"language": "es"}}}},
        {"type": "session.input_audio_buffer.append", "audio": second},
        {"type": "session.close"},
        until="session.closed",
    )


@pytest.mark.parametrize(
    ("path", "talk", "count"),
    [
        pytest.param("/v1/responses", talk_to_responses, 2, id="responses"),
        pytest.param("/v1/responses", leave_responses, 1, id="responses, left by the client"),
        pytest.param("/openai/v1/realtime?model=gpt-realtime", talk_in_realtime, 2, id="realtime"),
        pytest.param("/v1/realtime?model=gpt-realtime", cut_realtime, 1, id="realtime, cut by the provider"),
        pytest.param("/v1/realtime/translations?model=gpt-realtime-translate", translate, 1, id="translation"),
    ],
)
def test_websocket_session_costs_the_same(
    chain: Chain, path: str, talk: Callable[[ClientConnection], Any], count: int
) -> None:
    local = chain[1]

    async def hold_session() -> str:
        url = f"ws{local.base_url.removeprefix('http')}{path}"
        async with websockets.connect(url, additional_headers=local.headers, max_size=None) as socket:
            assert socket.response is not None
            with contextlib.suppress(websockets.ConnectionClosed):
                await talk(socket)
        return str(socket.response.headers["Llm-Proxy-Request-Id"])

    session = asyncio.run(hold_session())

    hosted = [{name: r[name] for name in BILL} for r in chain[0].read_session_records(session, count)]
    here = [{name: r[name] for name in BILL} for r in local.read_records(count, session=session)]
    assert len(hosted) == count
    assert here == hosted
    assert all(Decimal(bill["total"]) > 0 for bill in here)


#: Requests about a call.
OF_A_CALL = [
    EndpointRequest("/v1/realtime/calls/{id}/accept", {"json": {"type": "realtime", "model": "gpt-realtime"}}, "free"),
    EndpointRequest("/v1/realtime/calls/{id}/refer", {"json": {"target_uri": "tel:+14155550123"}}, "free"),
    EndpointRequest("/v1/realtime/calls/{id}/hangup", {}, "free"),
    EndpointRequest("/v1/realtime/calls/{id}/reject", {}, "free"),
]


def start_call(client: httpx.Client) -> str:
    """Start a realtime call as a program does; return its id."""
    session = json.dumps({"type": "realtime", "model": "gpt-realtime"}).encode()
    form = {"sdp": (None, OFFER, "application/sdp"), "session": (None, session, "application/json")}
    started = client.post("/openai/v1/realtime/calls", files=form)
    assert started.status_code == 201, started.text
    return started.headers["location"].rpartition("/")[2]


def test_realtime_call_costs_the_same(chain: Chain, client: httpx.Client) -> None:
    local = chain[1]
    call = start_call(client)

    async def talk() -> dict[str, Any]:
        url = f"ws{local.base_url.removeprefix('http')}/v1/realtime?call_id={call}"
        async with websockets.connect(url, additional_headers=local.headers) as socket:
            # The model of the call is known from then on.
            await answer(socket, until="session.created")
            done = await answer(socket, {"type": "response.create"}, until="response.done")
            usage: dict[str, Any] = done["response"]["usage"]
            return usage

    # The simulator also greets at once, often before the local proxy has opened its sideband (docs/known_limits.md).
    usage = asyncio.run(talk())
    (here,) = local.read_records(1, session=call, usage=usage)
    (hosted,) = (record for record in chain[0].read_session_records(call, 2) if record["usage"] == usage)

    assert {name: here[name] for name in BILL} == {name: hosted[name] for name in BILL}
    assert Decimal(here["total"]) > 0
    check_free(chain, client, OF_A_CALL[:3], call)
    check_free(chain, client, OF_A_CALL[3:], start_call(client))


def list_endpoints() -> Iterator[tuple[str, str]]:
    for provider in PROVIDERS:
        for endpoint in provider.endpoints:
            yield (endpoint.method if isinstance(endpoint, HttpEndpoint) else "WebSocket", endpoint.path)


def test_every_endpoint_has_a_test() -> None:
    in_tables = {(r.method, r.path) for r in (*WHOLE.values(), *STREAMS.values(), *FREE.values())}
    by_id = {(r.method, r.path) for r in (*OF_A_RESPONSE, *OF_A_BATCH, *OF_A_CALL)}
    own = {
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/batches/{id}/cancel"),
        ("POST", "/v1/complete"),
        ("GET", "/v1/models/{id}"),
        ("WebSocket", "/v1/responses"),
        ("WebSocket", "/v1/realtime"),
        ("WebSocket", "/v1/realtime/translations"),
        ("POST", "/v1/realtime/calls"),
    }

    assert set(list_endpoints()) == in_tables | by_id | own
