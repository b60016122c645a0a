"""Several provider keys: used in turn, set aside when rejected, and kept by the objects that they made."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import websockets

from tests.cli.rated_ledger import run
from tests.harness import (
    KEY_ID,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    running_proxy,
    wait_until,
)
from tests.harness import mint_for_other_project as mint_other
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT
from tests.server.test_reload import reload
from tornado_proxy.simulator import Simulator, running_simulator

NAMES = {"sk-main-0123456789": "main", "sk-second-0123456789": "second", "sk-own-0123456789": "own"}
MAIN: dict[str, Any] = {"name": "main", "secret": {"env": "KEY_MAIN"}, "provider_ids": {"api_key_id": "key_abc"}}
SECOND: dict[str, Any] = {"name": "second", "secret": {"env": "KEY_SECOND"}}

REALTIME = {"type": "realtime", "model": "gpt-realtime"}
OFFER = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
POLL = {"tornado_proxy.metering.deferred_settlement.POLL_INTERVAL_S": 0.1}


@pytest.fixture(autouse=True, scope="module")
def _secrets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for secret, name in NAMES.items():
            patch.setenv(f"KEY_{name.upper()}", secret)
        yield


def providers_of(url: str, *keys: dict[str, Any]) -> dict[str, Any]:
    # Copies: YAML writes a value that occurs twice as an alias.
    return {name: {"base_url": url, "keys": copy.deepcopy(list(keys))} for name in ("openai", "anthropic")}


@pytest.fixture
def simulator() -> Simulator:
    return Simulator(settle_s=0.3)


@pytest.fixture
def url(simulator: Simulator) -> Iterator[str]:
    with running_simulator(simulator) as running:
        yield running


@pytest.fixture
def proxy(url: str, tmp_path: Path) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path, url, constants=POLL, providers=providers_of(url, MAIN, SECOND)) as running:
        yield running


def send(proxy: ProxyProcess, path: str, body: object = None, *, method: str = "", token: str = "") -> httpx.Response:
    """Send a request with a JSON body, or a GET; return the response."""
    headers = {"Authorization": f"Bearer {token or mint()}", "anthropic-version": "2023-06-01"}
    method = method or ("GET" if body is None else "POST")
    return httpx.request(method, proxy.base_url + path, headers=headers, json=body, timeout=TIMEOUT_S)


def chat(proxy: ProxyProcess, text: str = "hi", token: str = "") -> httpx.Response:
    content = [{"role": "user", "content": text}]
    return send(proxy, "/v1/chat/completions", {**CHAT, "messages": content}, token=token)


def keys_of(simulator: Simulator, path: str = "") -> list[str]:
    """Return the names of the keys of the requests so far whose target contains `path`."""
    sent = [
        request.header("x-api-key") or (request.header("authorization") or "").removeprefix("Bearer ")
        for request in simulator.requests
        if path in request.target
    ]
    return [NAMES[key] for key in sent]


def test_keys_are_used_in_turn_and_named_in_records_and_reports(proxy: ProxyProcess, simulator: Simulator) -> None:
    for _ in range(4):
        assert chat(proxy).status_code == 200

    assert keys_of(simulator) == ["main", "second", "main", "second"]
    records = proxy.read_records(count=4)
    assert [record["provider_key"] for record in records] == ["main", "second"] * 2
    assert [record["provider_key_ids"] for record in records] == [{"api_key_id": "key_abc"}, None] * 2
    ledger = f"sqlite:///{proxy.ledger}"
    report = run("usage", "--ledger", ledger, "--group-by", "provider_key", "--format", "json")
    assert [(row["provider_key"], row["requests"]) for row in json.loads(report.stdout)] == [("main", 2), ("second", 2)]
    answer = send(proxy, f"/accounts/projects/{PROJECT}/llm-proxy/usage?group_by=provider_key&rows=groups").json()
    assert [(row["provider_key"], row["requests"]) for row in answer["usage"]] == [("main", 2), ("second", 2)]


def test_limited_and_rejected_keys_are_set_aside_and_their_responses_pass(
    proxy: ProxyProcess, simulator: Simulator, url: str
) -> None:
    limited = chat(proxy, "[[sim status=429 retry-after=30]]")
    after_limit = [chat(proxy).status_code for _ in range(3)]

    # The client gets the provider's own response, which was requested once.
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "30")
    assert limited.json()["error"]["code"] == "rate_limit_exceeded"
    assert after_limit == [200] * 3
    assert keys_of(simulator) == ["main", "second", "second", "second"]

    assert chat(proxy, "[[sim status=401]]").status_code == 401
    simulator.requests.clear()
    chat(proxy)
    # Both are set aside: the limited one is free sooner than the rejected one.
    assert keys_of(simulator) == ["main"]
    (first, second) = (json.loads(line) for line in proxy.wait_for_log_lines("provider key set aside", 2))
    assert (first["provider_key"], first["status"], first["seconds"]) == ("main", 429, 30)
    assert (second["provider_key"], second["status"], second["seconds"]) == ("second", 401, 60)
    metrics = proxy.fetch_admin("/metrics")[1]
    assert 'provider_keys_set_aside_total{provider="openai",provider_key="main",status="429"} 1.0' in metrics

    reload(proxy, providers=providers_of(url, MAIN, SECOND))
    simulator.requests.clear()
    for _ in range(2):
        chat(proxy)
    # The reload gives the rejected key another chance; the limited one waits.
    assert keys_of(simulator) == ["second", "second"]


def test_short_limit_sets_no_key_aside(proxy: ProxyProcess, simulator: Simulator) -> None:
    chat(proxy, "[[sim status=429 retry-after=20]]")
    for _ in range(3):
        chat(proxy)

    assert keys_of(simulator) == ["main", "second", "main", "second"]


def test_responses_are_read_continued_and_deleted_with_the_key_that_made_them(
    proxy: ProxyProcess, simulator: Simulator, url: str
) -> None:
    ids = [send(proxy, "/v1/responses", {"model": "gpt-4o-mini", "input": "hi"}).json()["id"] for _ in range(2)]
    by_id = dict(zip(ids, ("main", "second"), strict=True))

    for object_id in ids * 2:
        simulator.requests.clear()
        body = {"model": "gpt-4o-mini", "input": "on", "previous_response_id": object_id}
        assert send(proxy, f"/v1/responses/{object_id}").status_code == 200
        assert send(proxy, f"/v1/responses/{object_id}/input_items").status_code == 200
        assert send(proxy, "/v1/responses", body).status_code == 200
        assert set(keys_of(simulator)) == {by_id[object_id]}

    reload(proxy, providers=providers_of(url, MAIN))
    simulator.requests.clear()
    gone = send(proxy, f"/v1/responses/{ids[1]}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    continued = send(proxy, "/v1/responses", {"model": "gpt-4o-mini", "input": "on", "previous_response_id": ids[1]})
    assert (continued.status_code, continued.json()["error"]["code"]) == (404, "previous_response_not_found")
    assert len(simulator.requests) == 0
    assert send(proxy, f"/v1/responses/{ids[0]}", method="DELETE").status_code == 200


def test_replaced_secret_of_a_key_finds_its_objects(proxy: ProxyProcess, simulator: Simulator, url: str) -> None:
    ids = [send(proxy, "/v1/responses", {"model": "gpt-4o-mini", "input": "hi"}).json()["id"] for _ in range(2)]

    reload(proxy, providers=providers_of(url, {**MAIN, "secret": {"env": "KEY_OWN"}}, SECOND))
    simulator.requests.clear()

    assert [send(proxy, f"/v1/responses/{object_id}").status_code for object_id in ids] == [200, 200]
    assert keys_of(simulator) == ["own", "second"]


def test_deferred_usage_and_results_are_fetched_with_the_key_that_made_the_request(
    proxy: ProxyProcess, simulator: Simulator
) -> None:
    batch = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
    made = {send(proxy, "/anthropic/v1/messages/batches", batch).json()["id"]: name for name in ("main", "second")}
    background = {"model": "gpt-4o-mini", "input": "hi", "background": True}
    made |= {send(proxy, "/v1/responses", background).json()["id"]: name for name in ("main", "second")}

    for record in proxy.read_records(count=4):
        deadline = time.monotonic() + TIMEOUT_S
        while proxy.read_record(record["request_id"])["basis"] == "pending":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for object_id, name in made.items():
        if object_id.startswith("msgbatch"):
            assert send(proxy, f"/anthropic/v1/messages/batches/{object_id}/results").status_code == 200
        assert len(keys_of(simulator, object_id)) >= 1
        assert set(keys_of(simulator, object_id)) == {name}


@pytest.mark.parametrize(
    "accounts",
    [
        pytest.param({"sk-second-0123456789": "another"}, id="keys of two accounts"),
        pytest.param({}, id="keys of one account"),
    ],
)
def test_list_has_the_batches_of_all_keys_once(
    proxy: ProxyProcess, simulator: Simulator, accounts: dict[str, str]
) -> None:
    simulator.accounts = accounts
    batch = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
    made = [send(proxy, "/anthropic/v1/messages/batches", batch).json()["id"] for _ in range(5)]
    proxy.read_records(count=5)

    listed, cursor = [], ""
    for _ in range(6):
        page = send(proxy, f"/anthropic/v1/messages/batches?limit=2{cursor}").json()
        listed += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&after_id={page['last_id']}"

    # Newest first for each key; the first, third and fifth were made with the first key.
    assert listed == [made[4], made[2], made[0], made[3], made[1]]


def test_realtime_call_is_metered_and_hung_up_with_the_key_that_made_it(
    proxy: ProxyProcess, simulator: Simulator
) -> None:
    with openai.OpenAI(base_url=proxy.base_url + "/openai/v1", api_key=mint(), max_retries=0) as gpt:
        for name in ("main", "second"):
            form = {"sdp": (None, OFFER), "session": (None, json.dumps(REALTIME))}
            headers = {"Authorization": f"Bearer {mint()}"}
            made = httpx.post(proxy.base_url + "/v1/realtime/calls", files=form, headers=headers, timeout=TIMEOUT_S)
            call_id = made.headers["location"].rpartition("/")[2]
            gpt.realtime.calls.hangup(call_id)

            assert keys_of(simulator, call_id) == [name, name]  # the sideband and the hang-up


def test_short_lived_key_opens_a_session_and_its_record_names_the_lasting_key(
    proxy: ProxyProcess, simulator: Simulator
) -> None:
    async def talk(key: str) -> str:
        url = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?model=gpt-realtime"
        async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
            await socket.send(json.dumps({"type": "response.create"}))
            async for event in socket:
                if json.loads(event)["type"] == "response.done":
                    break
            assert socket.response is not None
            return socket.response.headers["Llm-Proxy-Request-Id"]

    for name in ("main", "second"):
        with openai.OpenAI(base_url=proxy.base_url + "/openai/v1", api_key=mint(), max_retries=0) as gpt:
            key = gpt.realtime.client_secrets.create(session={"type": "realtime", "model": "gpt-realtime"}).value
        (record,) = proxy.read_session_records(asyncio.run(talk(key)), 1)
        assert record["provider_key"] == name


# A project's own account and terms.


def own_project(url: str, **members: Any) -> dict[str, Any]:
    return {
        "id": OTHER_PROJECT,
        "name": "other",
        "api_keys": [{"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}],
        "providers": {"openai": {"keys": [{"name": "own", "secret": {"env": "KEY_OWN"}}], "base_url": f"{url}/v1"}},
        **members,
    }


SHARED_PROJECT = {
    "id": PROJECT,
    "name": "first",
    "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}],
}


def test_project_with_an_account_of_its_own_uses_its_key_address_surcharge_and_labels(
    simulator: Simulator, url: str, tmp_path: Path
) -> None:
    own_simulator = Simulator()
    labels = {"cost_center": "4711", "team": "blue"}
    with running_simulator(own_simulator) as own_url:
        projects = [SHARED_PROJECT, own_project(own_url, surcharge_rate="0.10", labels=labels)]
        changes = {"providers": providers_of(url, MAIN, SECOND), "projects": projects}
        with running_proxy(tmp_path, url, **changes) as proxy:
            text = "[[sim tokens=5]] hi"
            responses = [chat(proxy, text), chat(proxy, text, mint_other()), chat(proxy, text)]
            claude = send(proxy, "/anthropic/v1/messages", MESSAGE, token=mint_other())
            records = [proxy.read_record(response.headers["llm-proxy-request-id"]) for response in (*responses, claude)]
            ledger = f"sqlite:///{proxy.ledger}"
            report = run("usage", "--ledger", ledger, "--group-by", "label.cost_center", "--format", "json").stdout
            path = f"/accounts/projects/{OTHER_PROJECT}/llm-proxy/usage?group_by=label.team&rows=groups"
            usage = send(proxy, path, token=mint_other()).json()["usage"]

    # No key reaches the other's address.
    assert (keys_of(simulator), keys_of(own_simulator)) == (["main", "second", "main"], ["own"])
    assert [record["provider_key"] for record in records] == ["main", "own", "second", "main"]
    # The quota of the account is shown to its only project.
    assert ["x-ratelimit-limit-requests" in response.headers for response in responses] == [False, True, False]
    assert not any(name.startswith("anthropic-ratelimit") for name in claude.headers)
    # 5 % of the server, and 10 % of the project at either provider.
    assert [record["line_items"][-1]["unit_price"] for record in records] == ["0.05", "0.10", "0.05", "0.10"]
    assert [record["labels"] for record in records] == [None, labels, None, labels]
    assert [(row["label.cost_center"], row["requests"]) for row in json.loads(report)] == [(None, 2), ("4711", 2)]
    assert [(row["label.team"], row["requests"]) for row in usage] == [("blue", 2)]


def test_surcharge_and_region_of_a_project_are_in_its_bill(provider: ReplayProvider, url: str, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    body = {"id": "c", "model": "gpt-5.4", "choices": [], "usage": usage}
    provider.response = ProviderResponse(chunks=(json.dumps(body).encode(),))
    own = own_project(provider.url, surcharge_rate="0.10")
    own["providers"]["openai"]["region"] = "eu"
    changes = {"providers": providers_of(provider.url, MAIN), "projects": [SHARED_PROJECT, own]}
    with running_proxy(tmp_path, url, **changes) as proxy:
        question = {**CHAT, "model": "gpt-5.4"}
        responses = [send(proxy, "/v1/chat/completions", question, token=token) for token in (mint(), mint_other())]
        shared, regional = [proxy.read_record(response.headers["llm-proxy-request-id"]) for response in responses]

    # 1,000 x 2.50 and 100 x 15.00 per million; 5 % of it.
    assert (shared["subtotal"], shared["surcharge"]) == ("0.004000000000", "0.000200000000")
    # 10 % more at a regional host; 10 % of that.
    assert (regional["subtotal"], regional["surcharge"]) == ("0.004400000000", "0.000440000000")
    assert (regional["total"], shared["total"]) == ("0.004840000000", "0.004200000000")


def test_disabled_key_ends_its_tokens_at_the_next_request_and_its_session_soon(url: str, tmp_path: Path) -> None:
    second = {"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}
    both = {**SHARED_PROJECT, "api_keys": [*SHARED_PROJECT["api_keys"], second]}
    disabled = {**SHARED_PROJECT, "api_keys": [*SHARED_PROJECT["api_keys"], {**second, "disabled": True}]}

    async def close_code(proxy: ProxyProcess, token: str) -> int | None:
        address = f"ws{proxy.base_url.removeprefix('http')}/v1/realtime?model=gpt-realtime"
        async with websockets.connect(address, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
            await asyncio.to_thread(reload, proxy, projects=[disabled])
            async with asyncio.timeout(TIMEOUT_S):
                await socket.wait_closed()
            return socket.close_code

    with running_proxy(tmp_path, url, projects=[both], websockets={"recheck_s": 1}) as proxy:
        token = mint(key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)
        assert [chat(proxy).status_code, chat(proxy, token=token).status_code] == [200, 200]
        assert asyncio.run(close_code(proxy, token)) == 1008
        assert [chat(proxy).status_code, chat(proxy, token=token).status_code] == [200, 401]
        assert f"project {PROJECT}: api_keys (~{OTHER_KEY_ID})" in proxy.wait_for_log("configuration reloaded")


def test_discount_of_a_key_is_a_line_item_of_its_requests_and_batches(
    simulator: Simulator, url: str, tmp_path: Path
) -> None:
    discounted = {**MAIN, "discount": {"percent": "10", "from": "2026-01-01"}}
    ended = {**SECOND, "discount": {"percent": "50", "until": "2026-01-02"}}
    batch = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
    changes = {"providers": providers_of(url, discounted, ended), "pricing": {"surcharge_rate": "0.05"}}
    with running_proxy(tmp_path, url, constants=POLL, **changes) as proxy:
        for _ in range(2):
            assert chat(proxy).status_code == 200
        assert send(proxy, "/anthropic/v1/messages/batches", batch).status_code == 200
        wait_until(lambda: [line["basis"] for line in proxy.read_records()] == ["reported"] * 3, "settlement")
        lines = proxy.read_records()
    records = {(line["provider"], line["provider_key"]): line for line in lines}

    for key in (("openai", "main"), ("anthropic", "main")):
        *items, discount, surcharge = records[key]["line_items"]
        listed = sum(Decimal(item["amount"]) for item in items)
        assert (discount["type"], discount["unit_price"]) == ("provider_discount", "-0.1")
        assert Decimal(discount["quantity"]) == listed > 0
        assert Decimal(discount["amount"]) == -listed / 10
        assert Decimal(surcharge["amount"]) == listed * Decimal("0.9") * Decimal("0.05")
        assert Decimal(records[key]["subtotal"]) == listed * Decimal("0.9")
    assert {item["type"] for item in records["openai", "second"]["line_items"]} == {
        "input_tokens",
        "output_tokens",
        "llm_proxy_surcharge",
    }
