"""A stop cancels background responses and message batches at the provider, on real servers with two databases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.cli.rated_ledger import run
from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.test_rate_limits import two_processes
from tornado_proxy.simulator import Simulator, running_simulator

#: Intervals and waits of servers that notice a stop, and poll, ten times as often.
OFTEN = {
    "tornado_proxy.state.watcher._POLL_INTERVAL_S": 0.1,
    "tornado_proxy.metering.deferred_settlement.POLL_INTERVAL_S": 0.1,
    "tornado_proxy.metering.poll_schedule.MIN_WAIT_S": 0.1,
}

BACKGROUND = {"model": "gpt-4o-mini", "input": "Hello " * 50, "background": True}
ITEM = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
BATCH = {"requests": [{"custom_id": "a", "params": ITEM}]}


@pytest.fixture
def simulator() -> Iterator[tuple[Simulator, str]]:
    """A provider whose background work takes a minute."""
    simulator = Simulator(settle_s=60, record=True)
    with running_simulator(simulator) as url:
        yield simulator, url


def post(proxy: ProxyProcess, name: str, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {mint(name=name)}"}
    return httpx.post(proxy.base_url + path, json=body, headers=headers, timeout=TIMEOUT_S)


def begin(proxy: ProxyProcess, name: str, **members: Any) -> tuple[str, str]:
    """Begin a background response; return its id and that of its request."""
    response = post(proxy, name, "/v1/responses", {**BACKGROUND, **members})
    return response.json()["id"], response.headers["llm-proxy-request-id"]


def is_cancelled(simulator: Simulator, response_id: str) -> bool:
    stored = simulator.responses.get(response_id)
    assert stored is not None
    return stored.cancelled


def count(simulator: Simulator, method: str, path: str) -> int:
    return sum((request.method, request.target) == (method, path) for request in simulator.requests)


def read_settled(proxy: ProxyProcess, request_id: str) -> dict[str, Any]:
    """Return the record of a request when it is settled."""
    wait_until(lambda: proxy.read_record(request_id)["basis"] != "pending", f"the settlement of {request_id}")
    return proxy.read_record(request_id)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_stop_cancels_the_background_work_of_a_participant_until_it_is_resumed(
    database: str, simulator: tuple[Simulator, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    provider, url = simulator
    config = ["--config", tmp_path / "proxy.yaml"]
    with two_processes(database, tmp_path, url, request, constants=OFTEN) as two, ThreadPoolExecutor(2) as pool:
        first, second = two
        if database == "postgresql":
            first.ledger_url = request.getfixturevalue("postgres_database")
        response_id, request_id = begin(first, "ada")
        other_id, _ = begin(second, "eve")
        made = post(second, "ada", "/anthropic/v1/messages/batches", BATCH)
        batch = provider.batches.get(made.json()["id"])
        assert batch is not None
        # This one has no id yet when the stop is in force; and this one is still streamed to its client.
        slow = {"input": "[[sim first-delay-ms=600]] Hello"}
        unnamed = pool.submit(begin, first, "ada", **slow)
        streamed = pool.submit(post, second, "ada", "/v1/responses", {**BACKGROUND, "stream": True, **STREAM})
        wait_until(lambda: count(provider, "POST", "/v1/responses") == 4 and provider.streams > 0, "all requests")

        assert run("stop", "--participant", "ada", "--reason", "runaway", *config).exit_code == 0

        wait_until(lambda: is_cancelled(provider, response_id) and bool(batch.cancel_initiated), "the cancellations")
        unnamed_id, unnamed_request = unnamed.result(TIMEOUT_S)
        assert isinstance(streamed.exception(TIMEOUT_S), httpx.RemoteProtocolError)
        wait_until(lambda: is_cancelled(provider, unnamed_id), "the cancellation of work without an id")
        batch.ends_at = time.monotonic()

        # The provider states no usage: 88 tokens of input, for 352 bytes, x 0.15 USD per million.
        record = read_settled(first, request_id)
        assert (record["basis"], record["subtotal"]) == ("estimated", "0.000013200000")
        assert read_settled(first, unnamed_request)["basis"] == "estimated"
        cancelled = read_settled(first, made.headers["llm-proxy-request-id"])
        assert (cancelled["basis"], Decimal(cancelled["total"])) == ("reported", 0)

        assert run("resume", "--participant", "ada", *config).exit_code == 0

        wait_until(lambda: post(first, "ada", "/v1/responses", BACKGROUND).status_code == 200, "the resumption")
        resumed_id, _ = begin(first, "ada")
        wait_until(lambda: count(provider, "GET", f"/v1/responses/{resumed_id}") >= 3, "polls of both processes")
        assert not is_cancelled(provider, resumed_id)
        assert not is_cancelled(provider, other_id)
        # A process cancels work that another one has cancelled only if both do at the same moment.
        assert 1 <= count(provider, "POST", f"/v1/responses/{response_id}/cancel") <= 2
        assert 1 <= count(provider, "POST", f"/v1/messages/batches/{batch.id}/cancel") <= 2
        lines = [json.loads(line) for proxy in two for line in proxy.log if "cancelled because of a stop" in line]
        assert {line["object_id"] for line in lines} >= {response_id, unnamed_id, batch.id}
        for proxy in two:
            assert "llm_proxy_stop_cancellations_total" in proxy.fetch_admin("/metrics")[1]


STREAM = {"input": "[[sim tokens=2000 delay-ms=50]]"}


def test_cancellation_that_the_provider_does_not_take_is_tried_again(provider: ReplayProvider, tmp_path: Path) -> None:
    def respond(status: int, state: str) -> None:
        body = {"id": "resp_1", "object": "response", "model": "gpt-4o-mini", "status": state, "usage": USAGE[state]}
        provider.response = ProviderResponse(status, chunks=(json.dumps(body).encode(),))

    with running_proxy(tmp_path, provider.url, constants=OFTEN) as proxy:
        respond(200, "queued")
        _, request_id = begin(proxy, "ada")
        respond(503, "queued")
        assert run("stop", "--participant", "ada", "--config", tmp_path / "proxy.yaml").exit_code == 0
        line = json.loads(proxy.wait_for_log("pending request could not be cancelled"))
        assert (line["request_id"], line["object_id"]) == (request_id, "resp_1")
        assert line["reason"] == "the provider responds to the cancellation with status 503"
        respond(200, "queued")
        proxy.wait_for_log("pending request cancelled because of a stop")
        respond(200, "cancelled")

        record = read_settled(proxy, request_id)

    # 1000 x 0.15 and 20 x 0.60 per million, as the provider reports.
    assert (record["basis"], Decimal(record["subtotal"])) == ("reported", Decimal("0.000162"))
    assert ("POST", "/v1/responses/resp_1/cancel") in [(sent.method, sent.target) for sent in provider.requests]


USAGE = {"queued": None, "cancelled": {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}}
