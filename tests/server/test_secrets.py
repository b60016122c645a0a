"""Seeded secrets in every place one could hide, and the places where none may turn up."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from tests.harness import ANTHROPIC_KEY, OPENAI_KEY, OTHER_SIGNING_SECRET, SIGNING_SECRET, ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider

SERVER_SECRETS = (OPENAI_KEY, ANTHROPIC_KEY, SIGNING_SECRET, OTHER_SIGNING_SECRET)
PROMPT = "the-prompt-nobody-may-log-83f1"


def chat(proxy: ProxyProcess, token: str, **headers: str) -> httpx.Response:
    return httpx.post(
        proxy.base_url + "/v1/chat/completions",
        json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]},
        headers={"Authorization": f"Bearer {token}", **headers},
        timeout=30,
    )


def test_the_provider_gets_its_own_key_and_none_of_the_client_s_credentials(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    token = mint()
    hidden = {
        "Cookie": "session=cookie-secret-1",
        "Proxy-Authorization": "Basic proxy-secret-2",
        "Meshagent-Project-Id": "project-header-3",
        "X-Api-Key": token,
        "X-Forwarded-For": "10.1.2.3",
        "X-Custom-Secret": "custom-secret-4",
        "OpenAI-Organization": "org-secret-5",
        "OpenAI-Project": "proj-secret-6",
        "Connection": "keep-alive, OpenAI-Beta",
        "OpenAI-Beta": "connection-named-7",
    }

    chat(proxy, token, **hidden)

    asked = provider.requests[-1]
    sent = f"{asked.target} {asked.headers} {asked.body!r}"
    assert asked.header("authorization") == f"Bearer {OPENAI_KEY}"
    assert token not in sent
    for secret in ("secret-1", "secret-2", "header-3", "10.1.2.3", "secret-4", "secret-5", "secret-6", "named-7"):
        assert secret not in sent


@pytest.mark.parametrize(
    ("place", "how"),
    [
        pytest.param("query", {"params": {"api_key": "{}"}}, id="query"),
        pytest.param("query", {"params": {"note": "key {} here"}}, id="query, encoded"),
        pytest.param("header", {"headers": {"OpenAI-Api-Key": "{}"}}, id="a header of the provider's family"),
        pytest.param("header", {"headers": {"User-Agent": "agent/1 ({})"}}, id="inside a header that passes"),
        pytest.param("header", {"headers": {"X-Client-Request-Id": "{}"}}, id="request id"),
    ],
)
def test_a_token_where_it_would_go_on_is_refused_and_not_repeated(
    place: str, how: dict[str, dict[str, str]], proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    token = mint()
    before = len(provider.requests)
    filled = {kind: {name: text.format(token) for name, text in given.items()} for kind, given in how.items()}
    headers = {"Authorization": f"Bearer {token}", **filled.pop("headers", {})}

    answer = httpx.post(
        proxy.base_url + "/v1/chat/completions",
        json={"model": "gpt-4o-mini", "messages": []},
        headers=headers,
        params=filled.get("params"),
        timeout=30,
    )

    assert answer.status_code == 400
    assert place in answer.json()["error"]["message"]
    assert token not in answer.text
    assert len(provider.requests) == before


def test_a_token_in_the_path_is_refused(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    token = mint()
    before = len(provider.requests)

    answer = httpx.get(f"{proxy.base_url}/v1/models/{token}", headers={"Authorization": f"Bearer {token}"}, timeout=30)

    assert (answer.status_code, token in answer.text, len(provider.requests)) == (400, False, before)


def test_what_a_client_may_say_reaches_the_provider(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    said = {
        "Idempotency-Key": "same-again",
        "X-Client-Request-Id": "client-1",
        "OpenAI-Beta": "assistants=v2",
        "X-Stainless-Lang": "python",
        "User-Agent": "my-agent/1.0",
        "Accept": "application/json",
    }

    chat(proxy, mint(), **said)

    for name, value in said.items():
        assert provider.requests[-1].header(name) == value


def test_a_key_that_the_provider_echoes_does_not_reach_the_client(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    body = f'{{"error":{{"message":"Incorrect API key provided: {OPENAI_KEY}"}}}}'.encode()
    half = len(body) - 12
    headers = (("Content-Type", "application/json"), ("X-Echo", f"key {OPENAI_KEY}"), ("Set-Cookie", "a=b"))
    provider.response = ProviderResponse(
        401, (*headers, ("openai-organization", "org-owner")), (body[:half], body[half:])
    )

    answer = chat(proxy, mint())

    assert answer.status_code == 401
    assert len(answer.content) == len(body)
    assert OPENAI_KEY not in answer.text + str(answer.headers)
    assert "set-cookie" not in answer.headers
    assert "openai-organization" not in answer.headers


def test_no_secret_and_no_prompt_stands_in_the_log_the_metrics_or_the_ledger(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse()
    token = mint(name="someone")
    answers = [chat(proxy, token), chat(proxy, token + "x"), chat(proxy, "not-a-token-777")]
    proxy.read_record(answers[0].headers["llm-proxy-request-id"])
    for answer in answers:
        proxy.wait_for_log(answer.headers["llm-proxy-request-id"])

    seen = "\n".join(proxy.log) + proxy.fetch_admin("/metrics")[1] + "".join(answer.text for answer in answers)
    kept = b"".join(path.read_bytes() for path in proxy.folder.glob("ledger.db*") if path.is_file())
    for secret in (*SERVER_SECRETS, token, "not-a-token-777", PROMPT):
        assert secret not in seen
        assert secret.encode() not in kept
