"""The same request through `local` and through `serve`: the same bytes and the same line items."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest
import websockets

from tests.harness import KEY_ID, PROJECT, ProxyProcess, mint, running_proxy, wait_until
from tests.local.conftest import BILL
from tests.local.local_proxy import LocalProxy, running_local
from tests.local.machine import Machine
from tests.replay_provider import (
    ProviderResponse,
    ReplayProvider,
    load_exchange,
    recorded_response,
    running_replay_provider,
)
from tests.server.test_recorded import NAMES, VECTOR_STORE


@pytest.fixture(scope="module")
def provider() -> Iterator[ReplayProvider]:
    with running_replay_provider() as running:
        yield running


@pytest.fixture(scope="module")
def recorded(
    provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ProxyProcess, LocalProxy]]:
    """`local` in front of `serve` in front of a provider that sends recorded responses."""
    key = {"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}
    project = {"id": PROJECT, "name": "first", "api_keys": [key], "allowed_objects": [VECTOR_STORE]}
    folder = tmp_path_factory.mktemp("recorded")
    with (
        running_proxy(folder, provider.url, models_list="provider", projects=[project]) as proxy,
        running_local(Machine(folder / "home"), "--upstream", proxy.base_url, MESHAGENT_TOKEN=mint()) as local,
    ):
        yield proxy, local


@pytest.fixture
def gpt(chain: tuple[ProxyProcess, LocalProxy]) -> Iterator[openai.OpenAI]:
    local = chain[1]
    with openai.OpenAI(base_url=f"{local.base_url}/openai/v1", api_key=local.bearer, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(chain: tuple[ProxyProcess, LocalProxy]) -> Iterator[anthropic.Anthropic]:
    local = chain[1]
    with anthropic.Anthropic(base_url=f"{local.base_url}/anthropic", api_key=local.bearer, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_recorded_exchange_passes_unchanged_and_costs_the_same(
    name: str, recorded: tuple[ProxyProcess, LocalProxy], provider: ReplayProvider
) -> None:
    proxy, local = recorded
    exchange = load_exchange(name)
    request = exchange["request"]
    body = request.get("body")
    if isinstance(body, dict):
        body.pop("previous_response_id", None)  # no project owns it, so the proxy would reject it
    provider.response = recorded_response(name)
    target = f"/{exchange['provider']}{request['path']}"
    sent = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}

    direct = httpx.request(
        request["method"],
        proxy.base_url + target,
        content=sent,
        headers={**headers, "Authorization": f"Bearer {mint()}"},
    )
    through = httpx.request(
        request["method"], local.base_url + target, content=sent, headers={**headers, **local.headers}
    )

    assert through.status_code == direct.status_code
    if name == "responses-error":  # refused by the server, with an id of its own in the message
        assert through.json()["error"]["code"] == direct.json()["error"]["code"] == "model_not_priced"
        return
    # The meter of `local` requests the usage of a stream, so that the server sends it, and hides it again.
    assert through.content == direct.content
    # A response that arrives at once has a length, one in pieces is chunked.
    own = {"llm-proxy-request-id", "date", "transfer-encoding", "content-length"}
    assert {key: value for key, value in through.headers.items() if key not in own} == {
        key: value for key, value in direct.headers.items() if key not in own
    }
    # Compared with the direct request: in one ledger a container is charged once.
    hosted = proxy.read_record(direct.headers["llm-proxy-request-id"])
    (here,) = local.read_records(1, request_id=through.headers["llm-proxy-request-id"])
    assert {name: here[name] for name in BILL} == {name: hosted[name] for name in BILL}


def check_newest(chain: tuple[ProxyProcess, LocalProxy], request_id: str, *, basis: str = "reported") -> None:
    proxy, local = chain
    hosted = proxy.read_record(request_id)
    (here,) = local.read_records(1, request_id=request_id)
    assert {name: here[name] for name in BILL} == {name: hosted[name] for name in BILL}
    assert here["basis"] == basis


def request_id_of(raw: Any) -> str:
    request_id: str = raw.headers["llm-proxy-request-id"]
    return request_id


CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def test_large_body_costs_the_same(chain: tuple[ProxyProcess, LocalProxy], gpt: openai.OpenAI) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="word " * 60_000)

    check_newest(chain, request_id_of(raw))


def test_message_costs_the_same(chain: tuple[ProxyProcess, LocalProxy], claude: anthropic.Anthropic) -> None:
    message: Any = {"role": "user", "content": "hi"}
    raw = claude.messages.with_raw_response.create(model="claude-haiku-4-5", max_tokens=50, messages=[message])

    check_newest(chain, request_id_of(raw))


def test_stream_that_the_client_leaves_costs_the_same(chain: tuple[ProxyProcess, LocalProxy]) -> None:
    local = chain[1]
    body = {**CHAT, "stream": True, "messages": [{"role": "user", "content": "[[sim tokens=200 delay-ms=10]] go"}]}

    with httpx.stream("POST", f"{local.base_url}/v1/chat/completions", json=body, headers=local.headers) as response:
        next(response.iter_bytes())
        request_id = request_id_of(response)

    check_newest(chain, request_id)
    (here,) = local.read_records(1, request_id=request_id)
    assert here["outcome"] == "client_closed"


def test_background_response_settles_to_the_same_cost(
    chain: tuple[ProxyProcess, LocalProxy], gpt: openai.OpenAI
) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-5-mini", input="Hello", background=True)
    request_id = request_id_of(raw)

    def settled() -> bool:
        records = chain[1].read_records(1, request_id=request_id)
        return records[0]["basis"] == "reported" and chain[0].read_record(request_id)["basis"] == "reported"

    wait_until(settled, "the settlement in both ledgers")
    check_newest(chain, request_id)


def test_message_batch_settles_to_the_same_cost(
    chain: tuple[ProxyProcess, LocalProxy], claude: anthropic.Anthropic
) -> None:
    message: Any = {"role": "user", "content": "hi"}
    params: Any = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [message]}
    requests: Any = [{"custom_id": str(number), "params": params} for number in range(3)]
    known = [batch.id for batch in claude.messages.batches.list()]
    raw = claude.messages.batches.with_raw_response.create(requests=requests)
    request_id = request_id_of(raw)

    def settled() -> bool:
        return all(
            record["basis"] == "reported"
            for record in (*chain[1].read_records(1, request_id=request_id), chain[0].read_record(request_id))
        )

    wait_until(settled, "the settlement in both ledgers")
    check_newest(chain, request_id)
    assert [batch.id for batch in claude.messages.batches.list()] == [raw.parse().id, *known]


@pytest.mark.parametrize(
    ("path", "events"),
    [
        pytest.param(
            "/v1/responses", [{"type": "response.create", "model": "gpt-5-mini", "input": "hi"}], id="responses"
        ),
        pytest.param(
            "/openai/v1/realtime?model=gpt-realtime",
            [
                {
                    "type": "conversation.item.create",
                    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                },
                {"type": "response.create", "response": {"output_modalities": ["text"]}},
            ],
            id="realtime",
        ),
    ],
)
def test_websocket_session_costs_the_same(
    chain: tuple[ProxyProcess, LocalProxy], path: str, events: list[dict[str, Any]]
) -> None:
    proxy, local = chain

    async def hold_session() -> str:
        url = f"ws{local.base_url.removeprefix('http')}{path}"
        async with websockets.connect(url, additional_headers=local.headers, max_size=None) as socket:
            for event in events:
                await socket.send(json.dumps(event))
            async for frame in socket:
                if json.loads(frame)["type"] in ("response.done", "response.completed"):
                    break
            assert socket.response is not None
            return str(socket.response.headers["Llm-Proxy-Request-Id"])

    session = asyncio.run(hold_session())

    (hosted,) = proxy.read_session_records(session, 1)
    (here,) = local.read_records(1, session=session)
    assert {name: here[name] for name in BILL} == {name: hosted[name] for name in BILL}


def test_model_without_a_price_here_is_unsettled_and_not_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The server has another price list than this machine."""
    home = Machine(tmp_path_factory.mktemp("home"))
    answer = {
        "object": "list",
        "data": [],
        "model": "model-of-tomorrow",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    with (
        running_replay_provider() as provider,
        running_local(home, "--upstream", provider.url, "--project", PROJECT, MESHAGENT_TOKEN="tp_key") as local,
    ):
        provider.response = ProviderResponse(chunks=(json.dumps(answer).encode(),))
        body = {"model": "model-of-tomorrow", "input": "hi"}
        response = httpx.post(f"{local.base_url}/v1/embeddings", json=body, headers=local.headers)

        assert (response.status_code, response.content) == (200, provider.response.body)
        (record,) = local.read_records(1)
        assert (record["basis"], record["model_requested"]) == ("unsettled", "model-of-tomorrow")
        (sent,) = (request for request in provider.requests if request.target == "/openai/v1/embeddings")
        assert sent.header("authorization") == "Bearer tp_key"
        assert sent.header("meshagent-project-id") == PROJECT
        assert local.bearer not in str(sent)
