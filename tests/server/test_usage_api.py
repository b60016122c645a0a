"""The usage API: each caller reads its own usage, with the figures of the ledger."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import httpx2 as httpx
import pytest

from tests.harness import (
    KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    PROJECT,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tests.server.meshagent_client import RoomException, usage_client
from tornado_proxy.domain.text import format_sum
from tornado_proxy.simulator import Simulator, running_simulator

PATH = f"/accounts/projects/{PROJECT}/llm-proxy/usage"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
ANNOTATED_RETRY = {"X-Meshagent-Annotation-Env": "prod", "x-stainless-retry-count": "1"}
#: Spreadsheets execute a cell that starts with `=` (OWASP, "CSV Injection").
FORMULA = "=cmd|' /C calc'!A0"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server whose ledger has requests of ada, one an annotated retry, one of FORMULA, and one of another project."""
    with (
        running_simulator(Simulator()) as url,
        running_proxy(tmp_path_factory.mktemp("usage"), url) as running,
    ):
        call(running, "/openai/v1/chat/completions", CHAT, mint())
        call(running, "/anthropic/v1/messages", MESSAGE, mint(), ANNOTATED_RETRY)
        call(running, "/openai/v1/chat/completions", CHAT, mint(name=FORMULA))
        stranger = mint_for_other_project()
        call(running, "/openai/v1/chat/completions", CHAT, stranger)
        assert len(running.read_records(count=4)) == 4
        yield running


def call(proxy: ProxyProcess, path: str, body: dict[str, Any], token: str, more: dict[str, str] | None = None) -> None:
    headers = {"Authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", **(more or {})}
    response = httpx.post(proxy.base_url + path, json=body, headers=headers, timeout=TIMEOUT_S)
    assert response.status_code == 200


def fetch_usage(proxy: ProxyProcess, token: str | None = None, path: str = PATH, **query: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or mint()}"}
    return httpx.get(proxy.base_url + path, params=query, headers=headers, timeout=TIMEOUT_S)


def rows(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    usage: list[dict[str, Any]] = response.json()["usage"]
    return usage


def test_caller_reads_its_own_usage_to_the_last_digit(proxy: ProxyProcess) -> None:
    response = fetch_usage(proxy)

    own = [
        record for record in proxy.read_records() if record["participant"] == "ada" and record["project_id"] == PROJECT
    ]
    items = [
        (record["provider"], item["type"], format_sum(Decimal(item["amount"])))
        for record in own
        for item in record["line_items"]
    ]
    assert sorted((row["provider"], row["type"], row["total"]) for row in rows(response)) == sorted(items)
    assert {row["model"] for row in rows(response)} == {"gpt-4o-mini", "claude-haiku-4-5"}
    assert response.json()["summary"] == {
        "requests": 2,
        "total": format_sum(sum((Decimal(record["total"]) for record in own), Decimal(0))),
        "currency": "USD",
        "unsettled_requests": 0,
        "pending_requests": 0,
    }
    assert response.json()["next_cursor"] is None
    assert response.headers["cache-control"] == "no-store"


def test_caller_cannot_read_another_s_usage(proxy: ProxyProcess) -> None:
    rejected = fetch_usage(proxy, participant=FORMULA)

    assert rejected.status_code == 403
    assert rejected.json()["error"]["code"] == "not_allowed"
    assert "your own usage only" in rejected.json()["error"]["message"]
    assert rows(fetch_usage(proxy, mint(name="unknown"))) == []


def test_token_cannot_read_another_project(proxy: ProxyProcess) -> None:
    rejected = fetch_usage(proxy, path=f"/accounts/projects/{OTHER_PROJECT}/llm-proxy/usage")

    assert rejected.status_code == 403
    assert "another project" in rejected.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer not-a-token"}, {"x-api-key": "not-here"}])
def test_usage_without_a_valid_credential_is_a_401(proxy: ProxyProcess, headers: dict[str, str]) -> None:
    response = httpx.get(proxy.base_url + PATH, headers=headers, timeout=TIMEOUT_S)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS", "PATCH"])
def test_usage_accepts_get_and_head_only(proxy: ProxyProcess, method: str) -> None:
    response = httpx.request(method, proxy.base_url + PATH, headers={"Authorization": f"Bearer {mint()}"})

    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(proxy.wait_for_log(response.headers["llm-proxy-request-id"]))["status"] == 405


def test_head_of_usage_has_the_headers_of_get_and_no_body(proxy: ProxyProcess) -> None:
    headers = {"Authorization": f"Bearer {mint()}"}
    got, head = (httpx.request(method, proxy.base_url + PATH, headers=headers) for method in ("GET", "HEAD"))

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_invalid_parameter_is_a_400_with_its_rule(proxy: ProxyProcess) -> None:
    response = fetch_usage(proxy, interval="fortnight")

    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "interval must be one of hour, day, week, month",
        "type": "invalid_request_error",
        "param": "interval",
        "code": "bad_request",
    }


def test_filters_and_groups_apply(proxy: ProxyProcess) -> None:
    today = datetime.now(UTC).date()
    by_day = rows(
        fetch_usage(proxy, provider="openai", type="output_tokens", group_by="room,participant", interval="day")
    )

    (row,) = by_day
    assert row["start"] in (f"{today}T00:00:00.000Z", f"{today - timedelta(days=1)}T00:00:00.000Z")
    assert (row["room"], row["participant"], row["model"], row["requests"]) == ("lab", "ada", "gpt-4o-mini", 1)
    assert {row["model"] for row in rows(fetch_usage(proxy, model="claude-haiku-4-5"))} == {"claude-haiku-4-5"}
    assert {row["model"] for row in rows(fetch_usage(proxy, retries="only"))} == {"claude-haiku-4-5"}
    assert rows(fetch_usage(proxy, room="elsewhere")) == []
    assert rows(fetch_usage(proxy, start="2030-01-01")) == []
    assert rows(fetch_usage(proxy, end="2020-01-01")) == []


def test_pages_contain_the_rows_of_one_response(proxy: ProxyProcess) -> None:
    unpaged = rows(fetch_usage(proxy))
    paged: list[dict[str, Any]] = []
    target, seen = f"{PATH}?limit=2", 0
    while target:
        response = httpx.get(proxy.base_url + target, headers={"Authorization": f"Bearer {mint()}"}, timeout=TIMEOUT_S)
        page = rows(response)
        assert len(page) <= 2
        paged += page
        target = response.links.get("next", {}).get("url", "")
        assert bool(target) is (response.json()["next_cursor"] is not None)
        seen += 1

    assert paged == unpaged
    assert seen == (len(unpaged) + 1) // 2 > 1


def test_csv_has_the_same_figures_and_no_spreadsheet_formula(proxy: ProxyProcess) -> None:
    token = mint(name=FORMULA)
    response = fetch_usage(proxy, token, group_by="participant", format="csv")
    accepted = httpx.get(
        proxy.base_url + PATH + "?group_by=participant",
        headers={"Authorization": f"Bearer {token}", "Accept": "text/csv"},
        timeout=TIMEOUT_S,
    )

    lines = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert response.headers["content-type"].startswith("text/csv")
    assert accepted.text == response.text
    assert {line["participant"] for line in lines} == {"'" + FORMULA}
    assert [line["total"] for line in lines] == [row["total"] for row in rows(fetch_usage(proxy, token))]


def test_public_client_reads_usage(proxy: ProxyProcess) -> None:
    async def read(token: str, **query: Any) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as session:
            usage: list[dict[str, Any]] = await usage_client(
                proxy.base_url, token, session
            ).get_current_user_llm_proxy_usage(PROJECT, **query)
            return usage

    now = datetime.now(UTC)
    span = {"start": now - timedelta(days=1), "end": now + timedelta(days=1)}
    daily = asyncio.run(read(mint(), interval="day", **span))
    annotated = asyncio.run(read(mint(), annotations={"Env": "prod"}, **span))

    assert asyncio.run(read(mint())) == rows(fetch_usage(proxy))
    assert sum(Decimal(row["total"]) for row in daily) == Decimal(fetch_usage(proxy).json()["summary"]["total"])
    assert {row["provider"] for row in annotated} == {"anthropic"}
    assert asyncio.run(read(mint(), annotations={"env": "test"}, **span)) == []
    with pytest.raises(RoomException, match="Status code: 401"):
        asyncio.run(read(mint(key_id=KEY_ID, secret=OTHER_SIGNING_SECRET)))


def test_annotation_headers_are_not_forwarded(tmp_path: Any) -> None:
    simulator = Simulator()
    with running_simulator(simulator) as url, running_proxy(tmp_path, url) as running:
        call(running, "/openai/v1/chat/completions", CHAT, mint(), {"X-Meshagent-Annotation-Env": "prod"})

    (seen,) = simulator.requests
    assert not [name for name in dict(seen.headers) if "annotation" in name.lower()]
