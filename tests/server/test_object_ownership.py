"""Objects of one project cannot be read, cancelled, continued or listed by another; deferred usage is billed once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from tests.harness import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    POLL_S,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tornado_proxy.simulator import Simulator, running_simulator

#: Seconds between two polls of deferred usage; the server waits a second.
SHORT_POLL = {"tornado_proxy.metering.deferred_settlement.POLL_INTERVAL_S": 0.1}

MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(keys={"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY}, settle_s=0.3)


@pytest.fixture(scope="module")
def provider_url(simulator: Simulator) -> Iterator[str]:
    with running_simulator(simulator) as url:
        yield url


@pytest.fixture(scope="module")
def proxy(provider_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path_factory.mktemp("objects"), provider_url, constants=SHORT_POLL) as running:
        yield running


@pytest.fixture
def gpt(proxy: ProxyProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as client:
        yield client


@pytest.fixture
def claude(proxy: ProxyProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key=mint(), max_retries=0) as client:
        yield client


def send_as_other(proxy: ProxyProcess, method: str, path: str, **how: Any) -> httpx.Response:
    """Send a request of the other project, which shares the provider key."""
    headers = {"Authorization": f"Bearer {mint_for_other_project()}", "anthropic-version": "2023-06-01"}
    return httpx.request(method, proxy.base_url + path, headers=headers, timeout=TIMEOUT_S, **how)


def wait_settled(proxy: ProxyProcess, request_id: str) -> dict[str, Any]:
    """Return the record of a request; wait until it is settled."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        record = proxy.read_record(request_id)
        if record["basis"] != "pending":
            return record
        time.sleep(POLL_S)
    raise AssertionError("still pending")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/{id}"),
        ("DELETE", "/v1/responses/{id}"),
        ("POST", "/v1/responses/{id}/cancel"),
        ("GET", "/v1/responses/{id}/input_items"),
    ],
)
def test_response_is_found_by_its_project_only(
    method: str, path: str, gpt: openai.OpenAI, proxy: ProxyProcess, simulator: Simulator
) -> None:
    response = gpt.responses.create(model="gpt-4o-mini", input="hi")
    before = len(simulator.requests)

    rejected = send_as_other(proxy, method, path.format(id=response.id))

    assert rejected.status_code == 404
    assert len(simulator.requests) == before
    assert gpt.responses.retrieve(response.id).id == response.id


def test_response_is_continued_by_its_project_only(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    first = gpt.responses.create(model="gpt-4o-mini", input="hi")

    stolen = {"model": "gpt-4o-mini", "input": "go on", "previous_response_id": first.id}
    item = {"type": "item_reference", "id": first.output[0].id}
    assert send_as_other(proxy, "POST", "/v1/responses", json=stolen).status_code == 404
    assert (
        send_as_other(proxy, "POST", "/v1/responses", json={"model": "gpt-4o-mini", "input": [item]}).status_code == 404
    )
    assert (
        send_as_other(
            proxy, "POST", "/v1/responses", json={**stolen, "previous_response_id": "resp_made_up"}
        ).status_code
        == 404
    )
    assert gpt.responses.create(model="gpt-4o-mini", input="go on", previous_response_id=first.id).output_text


def test_reading_a_response_is_free(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    response = gpt.responses.create(model="gpt-4o-mini", input="hi")

    raw = gpt.responses.with_raw_response.retrieve(response.id)

    assert proxy.read_record(raw.headers["llm-proxy-request-id"])["basis"] == "free"


def test_background_response_is_settled_once_without_a_client_s_request(
    gpt: openai.OpenAI, proxy: ProxyProcess
) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="hi", background=True)
    request_id = raw.headers["llm-proxy-request-id"]
    assert raw.parse().status == "queued"

    record = wait_settled(proxy, request_id)
    for _ in range(3):
        gpt.responses.retrieve(raw.parse().id)

    usage = gpt.responses.retrieve(raw.parse().id).usage
    assert usage is not None
    cost = (usage.input_tokens * Decimal("0.15") + usage.output_tokens * Decimal("0.60")) / 1_000_000
    assert record["basis"] == "reported"
    assert Decimal(record["subtotal"]) == cost
    assert proxy.read_record(request_id) == record


def test_batch_is_settled_once_at_the_batch_rate(claude: anthropic.Anthropic, proxy: ProxyProcess) -> None:
    requests: Any = [{"custom_id": f"r{n}", "params": MESSAGE} for n in range(3)]
    raw = claude.messages.batches.with_raw_response.create(requests=requests)
    batch = raw.parse()
    record = wait_settled(proxy, raw.headers["llm-proxy-request-id"])

    results = [list(claude.messages.batches.results(batch.id)) for _ in range(3)]

    usages = [entry.result.message.usage for entry in results[0] if entry.result.type == "succeeded"]
    cost = sum(
        (usage.input_tokens * Decimal("0.5") + usage.output_tokens * Decimal("2.5")) / 1_000_000 for usage in usages
    )
    assert len(usages) == 3
    assert record["basis"] == "reported"
    assert Decimal(record["subtotal"]) == cost
    assert proxy.read_record(raw.headers["llm-proxy-request-id"]) == record
    reads = [record for record in proxy.read_records() if record["endpoint"].endswith("/results")]
    assert {record["basis"] for record in reads} == {"free"}


def test_batches_are_listed_and_read_by_their_project_only(claude: anthropic.Anthropic, proxy: ProxyProcess) -> None:
    batch = claude.messages.batches.create(requests=[{"custom_id": "a", "params": MESSAGE}])  # type: ignore[typeddict-item]

    assert batch.id in {listed.id for listed in claude.messages.batches.list()}
    listed = send_as_other(proxy, "GET", "/anthropic/v1/messages/batches")
    assert batch.id not in listed.text
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        rejected = send_as_other(proxy, method, f"/anthropic/v1/messages/batches/{batch.id}{path}")
        assert rejected.status_code == 404
        assert rejected.json()["error"]["type"] == "not_found_error"


def test_batch_with_one_unpriced_model_is_rejected(claude: anthropic.Anthropic, simulator: Simulator) -> None:
    requests: Any = [
        {"custom_id": "good", "params": MESSAGE},
        {"custom_id": "bad", "params": {**MESSAGE, "model": "claude-unknown"}},
    ]
    with pytest.raises(anthropic.BadRequestError, match="claude-unknown"):
        claude.messages.batches.create(requests=requests)
    assert not any("claude-unknown" in str(request.body) for request in simulator.requests)


def test_pending_request_is_settled_after_a_restart(tmp_path: Path) -> None:
    # Settled only after the first server is killed, also if its start takes a second.
    simulator = Simulator(settle_s=1.5)
    with running_simulator(simulator) as url:
        with running_proxy(tmp_path, url) as proxy:
            with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as gpt:
                raw = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="hi", background=True)
            request_id = raw.headers["llm-proxy-request-id"]
            assert proxy.read_record(request_id)["basis"] == "pending"
            proxy.process.kill()
            proxy.process.wait()
        with running_proxy(tmp_path, url, constants=SHORT_POLL) as proxy:
            record = wait_settled(proxy, request_id)

    assert record["basis"] == "reported"
    assert Decimal(record["total"]) > 0


def test_legacy_completions_have_no_price_and_are_rejected(proxy: ProxyProcess) -> None:
    token = mint()
    rejected = httpx.post(
        proxy.base_url + "/anthropic/v1/complete",
        json={"model": "claude-2", "prompt": "hi", "max_tokens_to_sample": 5},
        headers={"x-api-key": token},
    )

    assert rejected.status_code == 400
    assert rejected.json()["error"]["code"] == "model_not_priced"


def test_model_that_the_caller_may_not_use_is_not_found(proxy: ProxyProcess) -> None:
    assert send_as_other(proxy, "GET", "/v1/models/gpt-5.4").status_code == 404
    assert send_as_other(proxy, "GET", "/v1/models/gpt-4o-mini").status_code == 200


FOREIGN = "file-of-another-project"
USER_FILE = {"role": "user", "content": [{"type": "input_file", "file_id": FOREIGN}]}
UPLOAD = {"role": "user", "content": [{"type": "container_upload", "file_id": FOREIGN}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/responses", {"model": "gpt-4o-mini", "input": [USER_FILE]}, id="file in the input"),
        pytest.param(
            "/v1/responses",
            {"model": "gpt-4o-mini", "input": "hi", "tools": [{"type": "file_search", "vector_store_ids": [FOREIGN]}]},
            id="vector store",
        ),
        pytest.param("/v1/responses", {"model": "gpt-4o-mini", "prompt": {"id": FOREIGN}}, id="stored prompt"),
        pytest.param(
            "/v1/chat/completions",
            {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": FOREIGN}}]}],
            },
            id="file in a chat message",
        ),
        pytest.param("/anthropic/v1/messages", {**MESSAGE, "messages": [UPLOAD]}, id="container upload"),
        pytest.param(
            "/anthropic/v1/messages/batches",
            {"requests": [{"custom_id": "a", "params": {**MESSAGE, "messages": [UPLOAD]}}]},
            id="item of a batch",
        ),
        pytest.param("/anthropic/v1/messages", {**MESSAGE, "thread": {"previous_message_id": FOREIGN}}, id="thread"),
    ],
)
def test_reference_to_a_foreign_object_in_a_body_is_not_found(
    proxy: ProxyProcess, simulator: Simulator, path: str, body: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {mint()}", "anthropic-version": "2023-06-01"}

    response = httpx.post(proxy.base_url + path, headers=headers, json=body, timeout=TIMEOUT_S)

    assert response.status_code == 404
    assert FOREIGN in response.text
    assert not any(FOREIGN in str(request.body) for request in simulator.requests)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"thread": {"type": "create"}}, {"thread": {"type": "continue", "previous_message_id": "{}"}}),
        ({"diagnostics": {"previous_message_id": None}}, {"diagnostics": {"previous_message_id": "{}"}}),
    ],
)
def test_message_that_a_request_asks_to_keep_can_be_named_later(
    claude: anthropic.Anthropic, first: dict[str, Any], then: dict[str, Any], stream: bool
) -> None:
    if stream:
        with claude.messages.stream(**MESSAGE, extra_body=first) as events:
            message_id = events.get_final_message().id
    else:
        message_id = claude.messages.create(**MESSAGE, extra_body=first).id
    body = json.loads(json.dumps(then).replace("{}", message_id))

    assert claude.messages.create(**MESSAGE, extra_body=body).id != message_id


def test_message_that_is_not_kept_is_not_found(claude: anthropic.Anthropic) -> None:
    message_id = claude.messages.create(**MESSAGE).id

    with pytest.raises(anthropic.types.ThreadNotFoundError) as caught:
        claude.messages.create(
            **MESSAGE, extra_body={"thread": {"type": "continue", "previous_message_id": message_id}}
        )
    assert (caught.value.type, caught.value.error_code) == ("not_found_error", "thread_not_found")


def test_message_for_diagnostics_that_is_not_found_is_no_lost_thread(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(**MESSAGE, extra_body={"diagnostics": {"previous_message_id": FOREIGN}})

    assert (caught.value.type, caught.value.error_code) == ("not_found_error", None)


def test_sdk_sends_the_conversation_of_an_unknown_thread_again(
    claude: anthropic.Anthropic, provider_url: str, simulator: Simulator
) -> None:
    thread = claude.beta.messages.thread(model="claude-haiku-4-5", max_tokens=50)
    proxy_url, token = claude.base_url, claude.api_key
    claude.base_url, claude.api_key = provider_url, ANTHROPIC_KEY
    thread.send({"role": "user", "content": "first turn, not through the proxy"})
    claude.base_url, claude.api_key = proxy_url, token
    simulator.requests.clear()

    thread.send({"role": "user", "content": "second turn"})

    (request,) = simulator.requests
    sent = json.loads(request.body)
    assert sent["thread"] == {"type": "create"}
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "find",
    [
        pytest.param(lambda client: client.responses.retrieve(FOREIGN), id="response"),
        pytest.param(lambda client: client.responses.delete(FOREIGN), id="delete"),
        pytest.param(lambda client: client.responses.cancel(FOREIGN), id="cancel"),
        pytest.param(lambda client: client.responses.input_items.list(FOREIGN), id="input items"),
        pytest.param(lambda client: client.models.retrieve("gpt-unknown"), id="model"),
        pytest.param(
            lambda client: client.responses.create(model="gpt-4o-mini", input="on", previous_response_id=FOREIGN),
            id="previous response",
        ),
        pytest.param(
            lambda client: client.responses.create(model="gpt-4o-mini", input="on", conversation=FOREIGN),
            id="conversation",
        ),
        pytest.param(lambda client: client.get("/nothing", cast_to=object), id="path"),
    ],
)
def test_openai_sdk_raises_its_error_for_what_is_not_found(gpt: openai.OpenAI, find: Callable[[Any], Any]) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        find(gpt)

    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "find",
    [
        pytest.param(lambda client: client.messages.batches.retrieve(FOREIGN), id="batch"),
        pytest.param(lambda client: client.messages.batches.cancel(FOREIGN), id="cancel"),
        pytest.param(lambda client: client.messages.batches.delete(FOREIGN), id="delete"),
        pytest.param(lambda client: client.messages.batches.list(after_id=FOREIGN), id="cursor"),
        pytest.param(lambda client: client.models.retrieve("claude-unknown"), id="model"),
        pytest.param(lambda client: client.messages.create(**MESSAGE, container=FOREIGN), id="container"),
        pytest.param(lambda client: client.get("/v1/nothing", cast_to=object), id="path"),
    ],
)
def test_anthropic_sdk_raises_its_error_for_what_is_not_found(
    claude: anthropic.Anthropic, find: Callable[[Any], Any]
) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        find(claude)

    assert caught.value.type == "not_found_error"


@pytest.mark.parametrize("content_type", ["application/sdp", "multipart/form-data; boundary=x", "text/plain", ""])
def test_reference_is_found_whatever_the_content_type_says(
    proxy: ProxyProcess, simulator: Simulator, content_type: str
) -> None:
    headers = {"Authorization": f"Bearer {mint()}", "Content-Type": content_type}
    body = b'{"model":"gpt-4o-mini","input":"hi","tools":[{"type":"file_search","vector_store_ids":["%b"]}]}'

    response = httpx.post(
        f"{proxy.base_url}/v1/responses", headers=headers, content=body % FOREIGN.encode(), timeout=TIMEOUT_S
    )

    assert response.status_code == 404
    assert not any(FOREIGN in str(request.body) for request in simulator.requests)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        pytest.param("", {"input": "hi", "tools": [{"type": "x", "svg": {"model": "gpt-6-astra"}}]}, id="in a tool"),
        pytest.param("", {"input": [{"type": "y", "tools": [{"model": "gpt-6-astra"}]}]}, id="in an input item"),
        pytest.param("?model=gpt-6-astra", {"input": "hi"}, id="in the query"),
    ],
)
def test_model_outside_the_checked_members_is_rejected(
    proxy: ProxyProcess, simulator: Simulator, query: str, body: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {mint()}"}
    content = {"model": "gpt-4o-mini", **body}

    response = httpx.post(f"{proxy.base_url}/v1/responses{query}", headers=headers, json=content, timeout=TIMEOUT_S)

    assert response.status_code == 400
    assert not any("gpt-6-astra" in str(request.body) for request in simulator.requests)
