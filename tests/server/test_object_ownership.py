"""What one project made, another cannot see, read, cancel, continue or list; what is billed later is billed once."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
    OTHER_KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    ProxyProcess,
    mint,
    running_proxy,
)
from tornado_proxy.simulator import Simulator, running_simulator

MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(keys={"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY}, settle_s=0.3)


@pytest.fixture(scope="module")
def proxy(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_simulator(simulator) as url, running_proxy(tmp_path_factory.mktemp("objects"), url) as running:
        yield running


@pytest.fixture
def gpt(proxy: ProxyProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as client:
        yield client


@pytest.fixture
def claude(proxy: ProxyProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=proxy.base_url + "/anthropic", api_key=mint(), max_retries=0) as client:
        yield client


def other(proxy: ProxyProcess, method: str, path: str, **how: Any) -> httpx.Response:
    """A call of the other project, on the same provider key."""
    token = mint(project=OTHER_PROJECT, key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET, name="eve")
    headers = {"Authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"}
    return httpx.request(method, proxy.base_url + path, headers=headers, timeout=30, **how)


def settled(proxy: ProxyProcess, request_id: str) -> dict[str, Any]:
    """The record of a request once it is pending no more."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        record = proxy.read_record(request_id)
        if record["basis"] != "pending":
            return record
        time.sleep(0.1)
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
def test_a_response_is_found_by_its_own_project_only(
    method: str, path: str, gpt: openai.OpenAI, proxy: ProxyProcess, simulator: Simulator
) -> None:
    response = gpt.responses.create(model="gpt-4o-mini", input="hi")
    before = len(simulator.requests)

    answer = other(proxy, method, path.format(id=response.id))

    assert answer.status_code == 404
    assert len(simulator.requests) == before
    assert gpt.responses.retrieve(response.id).id == response.id


def test_a_response_is_continued_by_its_own_project_only(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    first = gpt.responses.create(model="gpt-4o-mini", input="hi")

    stolen = {"model": "gpt-4o-mini", "input": "go on", "previous_response_id": first.id}
    item = {"type": "item_reference", "id": first.output[0].id}
    assert other(proxy, "POST", "/v1/responses", json=stolen).status_code == 404
    assert other(proxy, "POST", "/v1/responses", json={"model": "gpt-4o-mini", "input": [item]}).status_code == 404
    assert (
        other(proxy, "POST", "/v1/responses", json={**stolen, "previous_response_id": "resp_made_up"}).status_code
        == 404
    )
    assert gpt.responses.create(model="gpt-4o-mini", input="go on", previous_response_id=first.id).output_text


def test_a_response_by_id_is_free(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    response = gpt.responses.create(model="gpt-4o-mini", input="hi")

    raw = gpt.responses.with_raw_response.retrieve(response.id)

    assert proxy.read_record(raw.headers["llm-proxy-request-id"])["basis"] == "free"


def test_a_background_response_is_settled_once_though_nobody_fetches_it(
    gpt: openai.OpenAI, proxy: ProxyProcess
) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="hi", background=True)
    request_id = raw.headers["llm-proxy-request-id"]
    assert raw.parse().status == "queued"

    record = settled(proxy, request_id)
    for _ in range(3):
        gpt.responses.retrieve(raw.parse().id)

    usage = gpt.responses.retrieve(raw.parse().id).usage
    assert usage is not None
    cost = (usage.input_tokens * Decimal("0.15") + usage.output_tokens * Decimal("0.60")) / 1_000_000
    assert record["basis"] == "reported"
    assert Decimal(record["subtotal"]) == cost
    assert proxy.read_record(request_id) == record


def test_a_batch_is_settled_once_at_the_batch_rate_however_often_its_results_are_read(
    claude: anthropic.Anthropic, proxy: ProxyProcess
) -> None:
    requests: Any = [{"custom_id": f"r{n}", "params": MESSAGE} for n in range(3)]
    raw = claude.messages.batches.with_raw_response.create(requests=requests)
    batch = raw.parse()
    record = settled(proxy, raw.headers["llm-proxy-request-id"])

    results = [list(claude.messages.batches.results(batch.id)) for _ in range(3)]

    usages = [one.result.message.usage for one in results[0] if one.result.type == "succeeded"]
    cost = sum(
        (usage.input_tokens * Decimal("0.5") + usage.output_tokens * Decimal("2.5")) / 1_000_000 for usage in usages
    )
    assert len(usages) == 3
    assert record["basis"] == "reported"
    assert Decimal(record["subtotal"]) == cost
    assert proxy.read_record(raw.headers["llm-proxy-request-id"]) == record
    reads = [one for one in proxy.read_records() if one["endpoint"].endswith("/results")]
    assert {one["basis"] for one in reads} == {"free"}


def test_batches_are_listed_and_read_by_their_own_project_only(
    claude: anthropic.Anthropic, proxy: ProxyProcess
) -> None:
    batch = claude.messages.batches.create(requests=[{"custom_id": "a", "params": MESSAGE}])  # type: ignore[list-item,typeddict-item]

    assert batch.id in {one.id for one in claude.messages.batches.list()}
    listed = other(proxy, "GET", "/anthropic/v1/messages/batches")
    assert batch.id not in listed.text
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        answer = other(proxy, method, f"/anthropic/v1/messages/batches/{batch.id}{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "not_found_error"


def test_a_batch_that_names_a_model_without_a_price_is_refused_whole(
    claude: anthropic.Anthropic, simulator: Simulator
) -> None:
    requests: Any = [
        {"custom_id": "good", "params": MESSAGE},
        {"custom_id": "bad", "params": {**MESSAGE, "model": "claude-nobody-knows"}},
    ]
    before = len(simulator.requests)

    with pytest.raises(anthropic.BadRequestError, match="claude-nobody-knows"):
        claude.messages.batches.create(requests=requests)
    assert len(simulator.requests) == before


def test_what_is_pending_is_settled_after_a_restart(tmp_path: Path) -> None:
    simulator = Simulator(settle_s=1.5)
    with running_simulator(simulator) as url:
        with running_proxy(tmp_path, url) as proxy:
            with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as gpt:
                raw = gpt.responses.with_raw_response.create(model="gpt-4o-mini", input="hi", background=True)
            request_id = raw.headers["llm-proxy-request-id"]
            assert proxy.read_record(request_id)["basis"] == "pending"
            proxy.process.kill()
            proxy.process.wait()
        with running_proxy(tmp_path, url) as proxy:
            record = settled(proxy, request_id)

    assert record["basis"] == "reported"
    assert Decimal(record["total"]) > 0


def test_legacy_completions_have_no_price_and_are_refused(proxy: ProxyProcess) -> None:
    token = mint()
    answer = httpx.post(
        proxy.base_url + "/anthropic/v1/complete",
        json={"model": "claude-2", "prompt": "hi", "max_tokens_to_sample": 5},
        headers={"x-api-key": token},
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "model_not_priced"


def test_a_model_that_the_caller_cannot_use_does_not_show(proxy: ProxyProcess) -> None:
    assert other(proxy, "GET", "/v1/models/gpt-5.4").status_code == 404
    assert other(proxy, "GET", "/v1/models/gpt-4o-mini").status_code == 200
