"""A provider that compresses its answers, though it was asked not to: bytes pass, and nothing is called known."""

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


def coded_reply(media_type: str, body: bytes, status: int = 200) -> ProviderResponse:
    coded = gzip.compress(body)
    headers = (("Content-Type", media_type), ("Content-Encoding", "gzip"))
    return ProviderResponse(status, headers, (coded[:40], coded[40:]))


def ask(proxy: ProxyProcess, method: str, path: str, **how: object) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it came."""
    headers = {"Authorization": f"Bearer {mint()}"}
    with (
        httpx.Client(base_url=proxy.base_url, headers=headers, timeout=30) as client,
        client.stream(method, path, json=how or None) as answer,
    ):
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_its_bytes_pass_unchanged_and_its_cost_is_not_known(
    stream: bool, proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = coded_reply("text/event-stream", STREAM) if stream else coded_reply("application/json", USAGE)

    answer, body = ask(
        proxy,
        "POST",
        "/v1/chat/completions",
        model="gpt-4o-mini",
        stream=stream,
        messages=[{"role": "user", "content": "hi"}],
    )

    assert provider.requests[-1].header("accept-encoding") == "identity"
    assert body == provider.response.body
    assert answer.headers["content-encoding"] == "gzip"
    request_id = answer.headers["llm-proxy-request-id"]
    record = proxy.read_record(request_id)
    assert (record["basis"], record["outcome"], record["line_items"]) == ("unsettled", "completed", [])
    faults = json.loads(proxy.wait_for_log(request_id))["faults"]
    assert faults == ["the response is compressed (gzip) despite Accept-Encoding: identity"]


def test_a_list_that_must_be_cut_and_cannot_be_read_does_not_pass(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = coded_reply("application/json", b'{"object":"list","data":[{"id":"gpt-secret"}]}')

    answer, body = ask(proxy, "GET", "/v1/models")

    assert answer.status_code == 502
    assert json.loads(body)["error"]["code"] == "upstream_unreachable"
    assert "compressed" in json.loads(body)["error"]["message"]


def test_a_coded_error_is_free_as_any_error(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = coded_reply("application/json", b'{"error":{"message":"no"}}', 400)

    answer, body = ask(proxy, "POST", "/v1/chat/completions", model="gpt-4o-mini", messages=[])

    assert (answer.status_code, body) == (400, provider.response.body)
    assert proxy.read_record(answer.headers["llm-proxy-request-id"])["basis"] == "free"
