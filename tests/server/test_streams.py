"""Clients that leave, providers that break: what the record says, and that a cut stream never looks complete."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import ProxyProcess, mint, running_proxy
from tests.replay_provider import ProviderResponse, ReplayProvider, running_replay_provider

SSE = (("Content-Type", "text/event-stream"),)
DELTA = b'data: {"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"word "}}],"usage":null}\n\n'
USAGE = (
    b'data: {"id":"c1","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'
)
DONE = b"data: [DONE]\n\n"
BODY = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
#: 10 x 0.15 + 5 x 0.60 per million
FULL_COST = Decimal("0.0000045")


def stream(proxy: ProxyProcess) -> httpx.Client:
    return httpx.Client(base_url=proxy.base_url, headers={"Authorization": f"Bearer {mint()}"}, timeout=30)


def leave_after_first_bytes(proxy: ProxyProcess) -> str:
    with stream(proxy) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        next(answer.iter_raw())
        return str(answer.headers["llm-proxy-request-id"])


def test_a_client_that_leaves_early_pays_what_one_that_stays_pays(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 200, USAGE, DONE))

    record = proxy.read_record(leave_after_first_bytes(proxy))

    assert record["outcome"] == "client_closed"
    assert record["status"] == 499
    assert record["basis"] == "reported"
    assert Decimal(record["subtotal"]) == FULL_COST


def test_with_cancel_the_provider_is_stopped_and_the_cost_is_an_estimate_with_a_method(tmp_path: Path) -> None:
    with (
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, streams={"on_client_disconnect": "cancel"}) as proxy,
    ):
        provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 5000, USAGE, DONE))
        started = time.monotonic()
        record = proxy.read_record(leave_after_first_bytes(proxy))

        assert time.monotonic() - started < 8
        assert record["outcome"] == "client_closed"
        assert record["basis"] == "estimated"
        assert record["estimate_method"]
        assert Decimal(record["subtotal"]) > 0


def test_a_provider_that_breaks_off_breaks_the_client_too(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(DELTA, DELTA), cut=True)

    with stream(proxy) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        request_id = answer.headers["llm-proxy-request-id"]
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()

    record = proxy.read_record(request_id)
    assert record["outcome"] == "upstream_broken"
    assert record["basis"] == "estimated"


def test_a_provider_that_cannot_be_reached_is_a_502_in_the_provider_s_shape_and_costs_nothing(tmp_path: Path) -> None:
    with running_proxy(tmp_path, "http://127.0.0.1:1") as proxy, stream(proxy) as client:
        answer = client.post("/v1/chat/completions", json=BODY)

        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        record = proxy.read_record(answer.headers["llm-proxy-request-id"])
        assert (record["outcome"], record["status"], record["basis"]) == ("upstream_error", 502, "free")


def test_chunks_reach_the_client_as_they_come(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 300, USAGE, DONE))

    with stream(proxy) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        started = time.monotonic()
        arrivals = [time.monotonic() - started for _ in answer.iter_raw()]

    assert arrivals[0] < arrivals[-1] / 4
    assert len(arrivals) > 20


def test_usage_that_was_added_for_the_ledger_does_not_show(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(DELTA, DELTA, USAGE, DONE))

    with stream(proxy) as client:
        body = client.post("/v1/chat/completions", json=BODY).content
        asked = client.post("/v1/chat/completions", json={**BODY, "stream_options": {"include_usage": True}}).content

    assert body == DELTA.replace(b',"usage":null', b"") * 2 + DONE
    assert asked == DELTA * 2 + USAGE + DONE
    assert b'"include_usage"' in provider.requests[-2].body


def test_many_streams_at_once_are_each_billed_once(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 50, USAGE, DONE))
    ids: list[str] = []

    def one() -> None:
        with stream(proxy) as client:
            ids.append(client.post("/v1/chat/completions", json=BODY).headers["llm-proxy-request-id"])

    threads = [threading.Thread(target=one) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(set(ids)) == 40
    proxy.read_record(ids[-1])
    mine = [record for record in proxy.read_records() if record["request_id"] in ids]
    assert len(mine) == 40
    assert {Decimal(record["subtotal"]) for record in mine} == {FULL_COST}
