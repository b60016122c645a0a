"""Responses compressed despite Accept-Encoding: identity: relayed unchanged, but not metered."""

from __future__ import annotations

import gzip
import json

import httpx2 as httpx
import pytest

from tests.harness import ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider

USAGE = (
    b'{"id":"c","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'
)
DELTA = b'data: {"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"word "}}],"usage":null}\n\n'
STREAM = DELTA * 20 + b"data: " + USAGE + b"\n\ndata: [DONE]\n\n"


def compressed_response(media_type: str, body: bytes, status: int = 200) -> ProviderResponse:
    data = gzip.compress(body)
    headers = (("Content-Type", media_type), ("Content-Encoding", "gzip"))
    return ProviderResponse(status, headers, (data[:40], data[40:]))


def fetch(proxy: ProxyProcess, method: str, path: str, **body: object) -> tuple[httpx.Response, bytes]:
    """Return the response, and its body before decompression."""
    headers = {"Authorization": f"Bearer {mint()}"}
    with (
        httpx.Client(base_url=proxy.base_url, headers=headers, timeout=30) as client,
        client.stream(method, path, json=body or None) as response,
    ):
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_compressed_response_is_relayed_unchanged_and_unsettled(
    stream: bool, proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = (
        compressed_response("text/event-stream", STREAM) if stream else compressed_response("application/json", USAGE)
    )

    response, body = fetch(
        proxy,
        "POST",
        "/v1/chat/completions",
        model="gpt-4o-mini",
        stream=stream,
        messages=[{"role": "user", "content": "hi"}],
    )

    assert provider.requests[-1].header("accept-encoding") == "identity"
    assert body == provider.response.body
    assert response.headers["content-encoding"] == "gzip"
    request_id = response.headers["llm-proxy-request-id"]
    record = proxy.read_record(request_id)
    assert (record["basis"], record["outcome"], record["line_items"]) == ("unsettled", "completed", [])
    faults = json.loads(proxy.wait_for_log(request_id))["faults"]
    assert faults == ["the response is compressed (gzip) despite Accept-Encoding: identity"]


def test_compressed_model_list_that_must_be_filtered_is_not_relayed(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = compressed_response("application/json", b'{"object":"list","data":[{"id":"gpt-secret"}]}')

    response, body = fetch(proxy, "GET", "/v1/models")

    assert response.status_code == 502
    assert json.loads(body)["error"]["code"] == "upstream_unreachable"
    assert "compressed" in json.loads(body)["error"]["message"]


def test_compressed_error_is_free(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = compressed_response("application/json", b'{"error":{"message":"no"}}', 400)

    response, body = fetch(proxy, "POST", "/v1/chat/completions", model="gpt-4o-mini", messages=[])

    assert (response.status_code, body) == (400, provider.response.body)
    assert proxy.read_record(response.headers["llm-proxy-request-id"])["basis"] == "free"
