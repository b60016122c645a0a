"""Secrets in every part of a request: none reaches the provider, a client, the log, the metrics or the ledger."""

from __future__ import annotations

import json

import httpx2 as httpx
import pytest

from tests.harness import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    OTHER_SIGNING_SECRET,
    PROJECT,
    SIGNING_SECRET,
    TIMEOUT_S,
    ProxyProcess,
    mint,
)
from tests.replay_provider import ProviderResponse, ReplayProvider

SERVER_SECRETS = (OPENAI_KEY, ANTHROPIC_KEY, SIGNING_SECRET, OTHER_SIGNING_SECRET)
PROMPT = "the-prompt-that-is-never-logged-83f1"


def chat(proxy: ProxyProcess, token: str, **headers: str) -> httpx.Response:
    return httpx.post(
        proxy.base_url + "/v1/chat/completions",
        json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]},
        headers={"Authorization": f"Bearer {token}", **headers},
        timeout=TIMEOUT_S,
    )


def test_provider_receives_its_own_key_and_none_of_the_client_s_credentials(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    token = mint()
    hidden = {
        "Cookie": "session=cookie-secret-1",
        "Proxy-Authorization": "Basic proxy-secret-2",
        "Meshagent-Project-Id": PROJECT,
        "X-Api-Key": token,
        "X-Forwarded-For": "10.1.2.3",
        "X-Custom-Secret": "custom-secret-4",
        "OpenAI-Organization": "org-secret-5",
        "OpenAI-Project": "proj-secret-6",
        "Connection": "keep-alive, OpenAI-Beta",
        "OpenAI-Beta": "connection-named-7",
    }

    chat(proxy, token, **hidden)

    received = provider.requests[-1]
    sent = f"{received.target} {received.headers} {received.body!r}"
    assert received.header("authorization") == f"Bearer {OPENAI_KEY}"
    assert token not in sent
    for secret in ("secret-1", "secret-2", PROJECT, "10.1.2.3", "secret-4", "secret-5", "secret-6", "named-7"):
        assert secret not in sent


def test_leftover_credential_beside_a_token_is_dropped(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    headers = {"Authorization": f"Bearer {mint()}", "X-Api-Key": "sk-ant-leftover-of-a-developer"}
    body = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    httpx.post(proxy.base_url + "/anthropic/v1/messages", json=body, headers=headers, timeout=TIMEOUT_S)

    received = provider.requests[-1]
    assert received.header("x-api-key") == ANTHROPIC_KEY
    assert "leftover" not in f"{received.target} {received.headers}"


@pytest.mark.parametrize(
    ("part", "given"),
    [
        pytest.param("query", {"params": {"api_key": "{}"}}, id="query"),
        pytest.param("query", {"params": {"note": "key {} here"}}, id="query, encoded"),
        pytest.param("header", {"headers": {"OpenAI-Api-Key": "{}"}}, id="a header of the provider's family"),
        pytest.param("header", {"headers": {"User-Agent": "agent/1 ({})"}}, id="inside a header that passes"),
        pytest.param("header", {"headers": {"X-Client-Request-Id": "{}"}}, id="request id"),
    ],
)
def test_token_in_a_forwarded_part_is_rejected_and_not_repeated(
    part: str, given: dict[str, dict[str, str]], proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    token = mint()
    before = len(provider.requests)
    filled = {kind: {name: text.format(token) for name, text in fields.items()} for kind, fields in given.items()}
    headers = {"Authorization": f"Bearer {token}", **filled.pop("headers", {})}

    response = httpx.post(
        proxy.base_url + "/v1/chat/completions",
        json={"model": "gpt-4o-mini", "messages": []},
        headers=headers,
        params=filled.get("params"),
        timeout=TIMEOUT_S,
    )

    assert response.status_code == 400
    assert part in response.json()["error"]["message"]
    assert token not in response.text
    assert len(provider.requests) == before


def test_token_in_the_path_is_rejected(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    token = mint()
    before = len(provider.requests)

    response = httpx.get(
        f"{proxy.base_url}/v1/models/{token}", headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S
    )

    assert (response.status_code, token in response.text, len(provider.requests)) == (400, False, before)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/{}", {}),
        ("/accounts/{}", {}),
        ("/v1/chat/completions", {"model": "{}", "messages": []}),
        ("/v1/chat/completions", {"model": "gpt-4o-mini", "service_tier": "{}", "messages": []}),
    ],
)
def test_token_in_a_wrong_place_is_not_repeated_to_its_sender(
    path: str, body: dict[str, object], proxy: ProxyProcess
) -> None:
    token = mint()
    filled = {name: token if value == "{}" else value for name, value in body.items()}

    response = httpx.post(
        proxy.base_url + path.format(token),
        json=filled,
        headers={"Authorization": f"Bearer {token}"},
        timeout=TIMEOUT_S,
    )

    assert response.status_code in (400, 404)
    assert token[:30] not in response.text


def test_allowed_request_headers_reach_the_provider(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    headers = {
        "Idempotency-Key": "same-again",
        "X-Client-Request-Id": "client-1",
        "OpenAI-Beta": "assistants=v2",
        "X-Stainless-Lang": "python",
        "User-Agent": "my-agent/1.0",
        "Accept": "application/json",
    }

    chat(proxy, mint(), **headers)

    for name, value in headers.items():
        assert provider.requests[-1].header(name) == value


def test_key_that_the_provider_echoes_does_not_reach_the_client(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    body = f'{{"error":{{"message":"Incorrect API key provided: {OPENAI_KEY}"}}}}'.encode()
    half = len(body) - 12
    headers = (("Content-Type", "application/json"), ("X-Echo", f"key {OPENAI_KEY}"), ("Set-Cookie", "a=b"))
    provider.response = ProviderResponse(
        401, (*headers, ("openai-organization", "org-owner")), (body[:half], body[half:])
    )

    response = chat(proxy, mint())

    assert response.status_code == 401
    assert len(response.content) == len(body)
    assert OPENAI_KEY not in response.text + str(response.headers)
    assert "set-cookie" not in response.headers
    assert "openai-organization" not in response.headers


def test_key_is_masked_in_every_part_of_a_response(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    # The other provider's key: a provider that both are sent to knows both.
    body = rf'{{"id":"c-{OPENAI_KEY}","model":"gpt-4o-mini-{ANTHROPIC_KEY}","x":"sk\u002dprovider-openai-7Qx1vB9mZ3"}}'
    headers = ((f"X-{ANTHROPIC_KEY}", "1"), ("Content-Type", f"application/json; key={OPENAI_KEY}"))
    headers += (("X-Request-Id", f"r-{OPENAI_KEY}"),)
    chunks = tuple(body[start : start + 7].encode() for start in range(0, len(body), 7))
    provider.response = ProviderResponse(200, headers, chunks, reason=f"OK {OPENAI_KEY}")

    response = chat(proxy, mint())
    record = proxy.read_record(response.headers["llm-proxy-request-id"])
    line = proxy.wait_for_log(response.headers["llm-proxy-request-id"])

    assert len(response.content) == len(body)
    seen = f"{response.text} {response.headers} {response.reason_phrase} {record} {line}".lower()
    for part in ("7qx1vb9mz3", "4kd8wn2pl6"):
        assert part not in seen
    assert response.reason_phrase == "OK " + "*" * len(OPENAI_KEY)
    assert json.loads(line)["upstream_request_id"] == "r-" + "*" * len(OPENAI_KEY)


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        pytest.param({}, None, id="the address of the request"),
        pytest.param(
            {"Host": "llm.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/ai"},
            "https://llm.example.com/ai",
            id="as a proxy on this machine states it",
        ),
    ],
)
def test_results_url_leads_to_the_proxy_and_not_to_the_provider(
    headers: dict[str, str], base: str | None, proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    results = "/v1/messages/batches/msgbatch_1/results"
    provider.response = ProviderResponse(
        chunks=(f'{{"id":"msgbatch_1","results_url":"https://api.anthropic.com{results}"}}'.encode(),)
    )
    message = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    created = httpx.post(
        proxy.base_url + "/anthropic/v1/messages/batches",
        json={"requests": [{"custom_id": "a", "params": message}]},
        headers={"x-api-key": mint(), **headers},
        timeout=TIMEOUT_S,
    )

    assert created.json()["results_url"] == f"{base or proxy.base_url}/anthropic{results}"


def test_log_metrics_and_ledger_contain_no_secret_and_no_prompt(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse()
    token = mint(name="someone")
    responses = [chat(proxy, token), chat(proxy, token + "x"), chat(proxy, "not-a-token-777")]
    proxy.read_record(responses[0].headers["llm-proxy-request-id"])
    for response in responses:
        proxy.wait_for_log(response.headers["llm-proxy-request-id"])

    text = "\n".join(proxy.log) + proxy.fetch_admin("/metrics")[1] + "".join(response.text for response in responses)
    stored = b"".join(path.read_bytes() for path in proxy.folder.glob("ledger.db*") if path.is_file())
    for secret in (*SERVER_SECRETS, token, "not-a-token-777", PROMPT):
        assert secret not in text
        assert secret.encode() not in stored
