"""Tokens of `tornado-proxy token narrow`, through the real server."""

from __future__ import annotations

import time

import httpx2 as httpx
import pytest

from tests.cli.rated_ledger import run
from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT, CHAT_RESPONSE, post_chat


def test_narrowed_token_may_use_its_own_models_only_and_is_recorded_under_the_participant(
    proxy: ProxyProcess, provider: ReplayProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    monkeypatch.setenv("MESHAGENT_TOKEN", mint(name="ada", models=["openai/*"]))
    child = run("token", "narrow", "--model", "openai/gpt-4o-mini", "--expires-in", "5m").stdout.strip()
    monkeypatch.setenv("MESHAGENT_TOKEN", child)
    other = run("token", "narrow", "--model", "openai/gpt-4o-*", "--expires-in", "1m")

    allowed = post_chat(proxy, token=child)
    refused = post_chat(proxy, {**CHAT, "model": "gpt-5.4"}, token=child)

    assert (allowed.status_code, refused.status_code) == (200, 403)
    assert proxy.read_record(allowed.headers["llm-proxy-request-id"])["participant"] == "ada"
    assert other.exit_code == 1
    assert "the parent token does not grant 'openai/gpt-4o-*'" in other.stderr


def post_until_settled(proxy: ProxyProcess, token: str) -> httpx.Response:
    """Send a request that can cost little; again while a reservation of an earlier one is in the way."""
    deadline = time.monotonic() + TIMEOUT_S
    while (response := post_chat(proxy, {**CHAT, "max_tokens": 5}, token)).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return response


def test_budget_of_a_narrowed_token_limits_it_and_its_children_but_not_its_parent(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    parent = mint(name="budgeted")
    # One request costs 0.000004725 USD.
    child = run("token", "narrow", "--budget", "0.000009", "--token", parent).stdout.strip()
    grandchild = run("token", "narrow", "--expires-in", "5m", "--token", child).stdout.strip()

    statuses = [post_until_settled(proxy, token).status_code for token in (child, grandchild, grandchild, child)]
    refused = post_chat(proxy, {**CHAT, "max_tokens": 5}, child)

    assert statuses == [200, 200, 402, 402]
    assert post_chat(proxy, token=parent).status_code == 200
    message = refused.json()["error"]["message"]
    assert "is spent: 0.000009 of 0.000009 USD; use another token, or ask for one with a larger budget" in message
