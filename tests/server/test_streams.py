"""Streams: disconnecting clients, broken providers, the usage that the proxy adds, and their records."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy
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
    return httpx.Client(base_url=proxy.base_url, headers={"Authorization": f"Bearer {mint()}"}, timeout=TIMEOUT_S)


def disconnect_after_first_bytes(proxy: ProxyProcess) -> str:
    with stream(proxy) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as response:
        next(response.iter_raw())
        return str(response.headers["llm-proxy-request-id"])


def test_client_that_disconnects_pays_for_the_complete_response(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 200, USAGE, DONE))

    record = proxy.read_record(disconnect_after_first_bytes(proxy))

    assert record["outcome"] == "client_closed"
    assert record["status"] == 499
    assert record["basis"] == "reported"
    assert Decimal(record["subtotal"]) == FULL_COST


def test_cancel_policy_stops_the_provider_and_estimates_the_cost(tmp_path: Path) -> None:
    with (
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, streams={"on_client_disconnect": "cancel"}) as proxy,
    ):
        provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 20_000, USAGE, DONE))
        started = time.monotonic()
        record = proxy.read_record(disconnect_after_first_bytes(proxy))

        assert time.monotonic() - started < 20  # the complete stream takes at least 40 s
        assert record["outcome"] == "client_closed"
        assert record["basis"] == "estimated"
        assert record["estimate_method"]
        assert Decimal(record["subtotal"]) > 0


def test_stream_that_the_provider_cuts_is_cut_at_the_client(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(DELTA, DELTA), cut=True)

    with stream(proxy) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as response:
        request_id = response.headers["llm-proxy-request-id"]
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()

    record = proxy.read_record(request_id)
    assert record["outcome"] == "upstream_broken"
    assert record["basis"] == "estimated"


def test_unreachable_provider_is_a_502_in_its_error_format_and_free(tmp_path: Path) -> None:
    with running_proxy(tmp_path, "http://127.0.0.1:1") as proxy, stream(proxy) as client:
        response = client.post("/v1/chat/completions", json=BODY)

        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_unreachable"
        record = proxy.read_record(response.headers["llm-proxy-request-id"])
        assert (record["outcome"], record["status"], record["basis"]) == ("upstream_error", 502, "free")


def test_chunks_are_relayed_as_they_arrive(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 300, USAGE, DONE))

    with stream(proxy) as client, client.stream("POST", "/v1/chat/completions", json=BODY) as response:
        started = time.monotonic()
        arrivals = [time.monotonic() - started for _ in response.iter_raw()]

    assert arrivals[0] < arrivals[-1] / 4
    assert len(arrivals) > 20


def test_usage_that_the_proxy_requests_is_hidden_from_the_client(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(DELTA, DELTA, USAGE, DONE))

    with stream(proxy) as client:
        body = client.post("/v1/chat/completions", json=BODY).content
        with_usage = client.post(
            "/v1/chat/completions", json={**BODY, "stream_options": {"include_usage": True}}
        ).content

    assert body == DELTA.replace(b',"usage":null', b"") * 2 + DONE
    assert with_usage == DELTA * 2 + USAGE + DONE
    assert b'"include_usage"' in provider.requests[-2].body


def test_concurrent_streams_are_billed_once_each(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(headers=SSE, chunks=(*[DELTA] * 50, USAGE, DONE))
    ids: list[str] = []

    def call() -> None:
        with stream(proxy) as client:
            ids.append(client.post("/v1/chat/completions", json=BODY).headers["llm-proxy-request-id"])

    threads = [threading.Thread(target=call) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)

    assert len(set(ids)) == 40
    proxy.read_record(ids[-1])
    found = [record for record in proxy.read_records() if record["request_id"] in ids]
    assert len(found) == 40
    assert {Decimal(record["subtotal"]) for record in found} == {FULL_COST}
