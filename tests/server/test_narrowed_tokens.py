"""Tokens of `tornado-proxy token narrow`, through the real server."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx2 as httpx
import pytest

from tests.cli.rated_ledger import run
from tests.harness import PROJECT, TIMEOUT_S, ProxyProcess, mint, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT, CHAT_RESPONSE, post_chat
from tests.server.test_budget_changes import request_admin, run_budget
from tests.server.test_dashboard import fetch_rows, sign_in
from tornado_proxy.auth.narrowing import list_token_ids
from tornado_proxy.auth.unverified_token import read_unverified


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


def fetch_own(proxy: ProxyProcess, token: str) -> Any:
    """Return the budgets that the holder of a token sees."""
    url = f"{proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/budgets"
    return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S).json()["budgets"]


def list_warnings(proxy: ProxyProcess) -> list[tuple[str, str, int, str]]:
    """Return subject, scope, threshold and limit of the warnings in the log."""
    lines = [json.loads(line) for line in list(proxy.log) if "budget threshold reached" in line]
    return [(line["subject"], line["per"], line["threshold_percent"], line["limit_usd"]) for line in lines]


def test_budget_of_a_narrowed_token_is_listed_warned_of_set_and_lifted(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    parent = mint(name="listed")
    child = run("token", "narrow", "--budget", "0.000009", "--expires-in", "5m", "--token", parent).stdout.strip()
    token_id = list_token_ids(child, read_unverified(child))[-1]
    assert [post_until_settled(proxy, child).status_code for _ in range(3)] == [200, 200, 402]
    (listed,) = [row for row in run_budget(proxy, "list") if row["token"] == token_id]

    assert (listed["per"], listed["period"], listed["limit"], listed["source"]) == (
        "token",
        "total",
        "0.000009",
        "token",
    )
    assert (listed["settled"], listed["holder"]) == ("0.00000945", "listed")
    expiry = datetime.fromisoformat(listed["end"]) - datetime.now(UTC)
    assert 0 < expiry.total_seconds() <= 300
    assert fetch_own(proxy, child) == [listed]
    assert [row for row in fetch_own(proxy, parent) if row["token"] == token_id] == []
    wait_until(lambda: (token_id, "token", 100, "0.000009") in list_warnings(proxy), "the warning")

    with sign_in(proxy) as operator:
        shown = [row for row in fetch_rows(operator, "/dashboard/budgets", "budgets") if token_id in row["subject"]]
        page = operator.get("/dashboard/budgets").text
    assert [(row["subject"], row["source"]) for row in shown] == [(f"token {token_id} of listed", "token")]
    assert "stated by the token" in page

    body = {"project": PROJECT, "period": "total", "token": token_id, "limit": "0.000012"}
    raised = request_admin(proxy, "PUT", "", body).json()["budgets"]
    assert [(row["limit"], row["configured_limit"], row["source"]) for row in raised] == [
        ("0.000012", "0.000009", "state")
    ]
    assert [post_until_settled(proxy, child).status_code for _ in range(2)] == [200, 402]

    (lifted,) = run_budget(proxy, "lift", PROJECT, "--period", "total", "--token", token_id)
    assert lifted["limit"] is None
    wait_until(lambda: post_chat(proxy, {**CHAT, "max_tokens": 5}, child).status_code == 200, "the budget is lifted")
    text = run("budget", "show", PROJECT, "--config", str(proxy.ledger.with_name("proxy.yaml"))).stdout
    assert "listed" in text
