"""Container time on the running server: charged once over several requests, and the same when it is rated again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import ProxyProcess, mint, running_proxy
from tests.replay_provider import ProviderResponse, ReplayProvider, running_replay_provider

CODE = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}
USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}


@pytest.fixture(scope="module")
def provider() -> Iterator[ReplayProvider]:
    with running_replay_provider() as replaying:
        yield replaying


@pytest.fixture(scope="module")
def proxy(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path_factory.mktemp("containers"), provider.url) as running:
        yield running


def response(response_id: str, container_id: str, **members: Any) -> dict[str, Any]:
    run = {"type": "code_interpreter_call", "id": f"ci_{response_id}", "container_id": container_id, "code": "1 + 1"}
    return {
        "id": response_id,
        "object": "response",
        "model": "gpt-5.4",
        "status": "completed",
        "usage": USAGE,
        "tools": [CODE],
        "output": [run],
        **members,
    }


def post(proxy: ProxyProcess, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request and return its record."""
    sent = httpx.post(proxy.base_url + path, json=body, headers={"Authorization": f"Bearer {mint()}"}, timeout=30)
    assert sent.status_code == 200, sent.text
    return proxy.read_record(sent.headers["llm-proxy-request-id"])


def time_items(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["type"], item["quantity"]) for item in record["line_items"] if "container" in item["type"]]


def test_container_of_a_conversation_is_charged_once(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    body = {"model": "gpt-5.4", "input": "compute", "tools": [CODE]}
    provider.response = ProviderResponse(chunks=(json.dumps(response("resp_1", "cntr_1")).encode(),))
    first = post(proxy, "/v1/responses", body)
    again = response("resp_2", "cntr_1", previous_response_id="resp_1")
    provider.response = ProviderResponse(chunks=(json.dumps(again).encode(),))
    second = post(proxy, "/v1/responses", {**body, "previous_response_id": "resp_1"})
    event = {"type": "response.completed", "response": response("resp_3", "cntr_2")}
    provider.response = ProviderResponse(
        headers=(("Content-Type", "text/event-stream"),), chunks=(b"data: " + json.dumps(event).encode() + b"\n\n",)
    )
    streamed = post(proxy, "/v1/responses", {**body, "stream": True})

    # Tokens: 1000 x 2.50 + 100 x 15 per million; a container of 4 GB: five minutes at 0.006.
    assert Decimal(first["subtotal"]) == Decimal("0.004") + Decimal("0.03")
    assert Decimal(second["subtotal"]) == Decimal("0.004")
    assert Decimal(streamed["subtotal"]) == Decimal("0.034")
    assert [time_items(record) for record in (first, second, streamed)] == [
        [("container_seconds", "300")],
        [],
        [("container_seconds", "300")],
    ]
    assert {(record["basis"], record["estimate_method"]) for record in (first, second, streamed)} == {
        ("estimated", "container_minimum")
    }


def test_new_container_of_a_conversation_is_charged(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    body = {"model": "gpt-5.4", "input": "compute", "tools": [CODE]}
    provider.response = ProviderResponse(chunks=(json.dumps(response("resp_10", "cntr_10")).encode(),))
    post(proxy, "/v1/responses", body)
    # The container of the first response has expired: this one has run in another.
    again = response("resp_11", "cntr_11", previous_response_id="resp_10")
    provider.response = ProviderResponse(chunks=(json.dumps(again).encode(),))

    record = post(proxy, "/v1/responses", {**body, "previous_response_id": "resp_10"})

    assert (time_items(record), Decimal(record["subtotal"])) == ([("container_seconds", "300")], Decimal("0.034"))


def test_code_execution_of_anthropic_is_free_within_the_allowance(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [{"type": "text", "text": "2"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1000, "output_tokens": 100},
        "container": {"id": "container_1", "expires_at": "2030-01-01T00:00:00Z"},
    }
    body = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "compute"}]}
    provider.response = ProviderResponse(chunks=(json.dumps(message).encode(),))

    charged = post(
        proxy,
        "/anthropic/v1/messages",
        {**body, "tools": [{"type": "code_execution_20260120", "name": "code_execution"}]},
    )
    free = post(
        proxy,
        "/anthropic/v1/messages",
        {
            **body,
            "tools": [
                {"type": "code_execution_20260120", "name": "code_execution"},
                {"type": "web_search_20260209", "name": "web_search"},
            ],
        },
    )

    # 1000 x 2 + 100 x 10 per million.
    assert [Decimal(record["subtotal"]) for record in (charged, free)] == [Decimal("0.003"), Decimal("0.003")]
    assert [time_items(record) for record in (charged, free)] == [[("free_container_seconds", "300")], []]
    assert [record["basis"] for record in (charged, free)] == ["estimated", "reported"]
