"""Tokens of `tornado-proxy token narrow`, through the real server."""

from __future__ import annotations

import pytest

from tests.cli.rated_ledger import run
from tests.harness import ProxyProcess, mint
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
