"""The usage API through the real server: who sees what, and that the figures are the ledger's."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import httpx2 as httpx
import pytest

from tests.harness import (
    KEY_ID,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    OTHER_SIGNING_SECRET,
    PROJECT,
    ProxyProcess,
    mint,
    running_proxy,
)
from tests.server.meshagent_client import RoomException, usage_client
from tornado_proxy.simulator import Simulator, running_simulator

PATH = f"/accounts/projects/{PROJECT}/llm-proxy/usage"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
FORMULA = "=cmd|' /C calc'!A0"

SPEED_S = 30


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server whose ledger holds two calls of ada, one of them annotated, one of bob's, and one of another project."""
    with (
        running_simulator(Simulator()) as url,
        running_proxy(tmp_path_factory.mktemp("usage"), url) as running,
    ):
        call(running, "/openai/v1/chat/completions", CHAT, mint())
        call(running, "/anthropic/v1/messages", MESSAGE, mint(), {"X-Meshagent-Annotation-Env": "prod"})
        call(running, "/openai/v1/chat/completions", CHAT, mint(name=FORMULA))
        stranger = mint(project=OTHER_PROJECT, key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)
        call(running, "/openai/v1/chat/completions", CHAT, stranger)
        assert len(running.read_records(count=4)) == 4
        yield running


def call(proxy: ProxyProcess, path: str, body: dict[str, Any], token: str, more: dict[str, str] | None = None) -> None:
    headers = {"Authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", **(more or {})}
    answer = httpx.post(proxy.base_url + path, json=body, headers=headers, timeout=SPEED_S)
    assert answer.status_code == 200


def ask(proxy: ProxyProcess, token: str | None = None, path: str = PATH, **query: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or mint()}"}
    return httpx.get(proxy.base_url + path, params=query, headers=headers, timeout=SPEED_S)


def rows(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    usage: list[dict[str, Any]] = answer.json()["usage"]
    return usage


def test_a_caller_sees_its_own_usage_to_the_last_digit(proxy: ProxyProcess) -> None:
    answer = ask(proxy)

    own = [one for one in proxy.read_records() if one["participant"] == "ada" and one["project_id"] == PROJECT]
    items = [(one["provider"], item["type"], item["amount"]) for one in own for item in one["line_items"]]
    assert sorted((row["provider"], row["type"], row["total"]) for row in rows(answer)) == sorted(items)
    assert {row["model"] for row in rows(answer)} == {"gpt-4o-mini", "claude-haiku-4-5"}
    assert answer.json()["summary"] == {
        "requests": 2,
        "total": str(sum(Decimal(one["total"]) for one in own)),
        "currency": "USD",
        "unsettled_requests": 0,
        "pending_requests": 0,
    }
    assert answer.json()["next_cursor"] is None
    assert answer.headers["cache-control"] == "no-store"


def test_no_caller_sees_another_s_usage(proxy: ProxyProcess) -> None:
    refused = ask(proxy, participant=FORMULA)

    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "not_allowed"
    assert "your own usage only" in refused.json()["error"]["message"]
    assert rows(ask(proxy, mint(name="nobody"))) == []


def test_a_token_of_one_project_reads_no_other(proxy: ProxyProcess) -> None:
    refused = ask(proxy, path=f"/accounts/projects/{OTHER_PROJECT}/llm-proxy/usage")

    assert refused.status_code == 403
    assert "another project" in refused.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer not-a-token"}, {"x-api-key": "not-here"}])
def test_without_a_valid_credential_it_is_401(proxy: ProxyProcess, headers: dict[str, str]) -> None:
    answer = httpx.get(proxy.base_url + PATH, headers=headers, timeout=SPEED_S)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("method", ["POST", "DELETE", "HEAD", "PUT", "OPTIONS", "PATCH"])
def test_usage_is_read_with_get(proxy: ProxyProcess, method: str) -> None:
    answer = httpx.request(method, proxy.base_url + PATH, headers={"Authorization": f"Bearer {mint()}"})

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_a_question_that_cannot_be_understood_says_what_to_do(proxy: ProxyProcess) -> None:
    answer = ask(proxy, interval="fortnight")

    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "interval is one of hour, day, week, month",
        "type": "invalid_request_error",
        "param": "interval",
        "code": "bad_request",
    }


def test_filters_and_groups(proxy: ProxyProcess) -> None:
    today = datetime.now(UTC).date()
    by_day = rows(ask(proxy, provider="openai", type="output_tokens", group_by="room,participant", interval="day"))

    (row,) = by_day
    assert row["start"] in (f"{today}T00:00:00.000Z", f"{today - timedelta(days=1)}T00:00:00.000Z")
    assert (row["room"], row["participant"], row["model"], row["requests"]) == ("lab", "ada", "gpt-4o-mini", 1)
    assert {one["model"] for one in rows(ask(proxy, model="claude-haiku-4-5"))} == {"claude-haiku-4-5"}
    assert rows(ask(proxy, room="elsewhere")) == []
    assert rows(ask(proxy, start="2030-01-01")) == []
    assert rows(ask(proxy, end="2020-01-01")) == []


def test_pages_hold_what_one_answer_would(proxy: ProxyProcess) -> None:
    whole = rows(ask(proxy))
    paged: list[dict[str, Any]] = []
    target, seen = f"{PATH}?limit=2", 0
    while target:
        answer = httpx.get(proxy.base_url + target, headers={"Authorization": f"Bearer {mint()}"}, timeout=SPEED_S)
        page = rows(answer)
        assert len(page) <= 2
        paged += page
        target = answer.links.get("next", {}).get("url", "")
        assert bool(target) is (answer.json()["next_cursor"] is not None)
        seen += 1

    assert paged == whole
    assert seen == (len(whole) + 1) // 2 > 1


def test_csv_has_the_same_figures_and_nothing_that_a_spreadsheet_runs(proxy: ProxyProcess) -> None:
    token = mint(name=FORMULA)
    answer = ask(proxy, token, group_by="participant", format="csv")
    accepted = httpx.get(
        proxy.base_url + PATH + "?group_by=participant",
        headers={"Authorization": f"Bearer {token}", "Accept": "text/csv"},
        timeout=SPEED_S,
    )

    lines = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert answer.headers["content-type"].startswith("text/csv")
    assert accepted.text == answer.text
    assert {line["participant"] for line in lines} == {"'" + FORMULA}
    assert [line["total"] for line in lines] == [row["total"] for row in rows(ask(proxy, token))]


def test_the_public_client_reads_it(proxy: ProxyProcess) -> None:
    async def read(token: str, **question: Any) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as session:
            usage: list[dict[str, Any]] = await usage_client(
                proxy.base_url, token, session
            ).get_current_user_llm_proxy_usage(PROJECT, **question)
            return usage

    now = datetime.now(UTC)
    span = {"start": now - timedelta(days=1), "end": now + timedelta(days=1)}
    daily = asyncio.run(read(mint(), interval="day", **span))
    annotated = asyncio.run(read(mint(), annotations={"Env": "prod"}, **span))

    assert asyncio.run(read(mint())) == rows(ask(proxy))
    assert sum(Decimal(row["total"]) for row in daily) == Decimal(ask(proxy).json()["summary"]["total"])
    assert {row["provider"] for row in annotated} == {"anthropic"}
    assert asyncio.run(read(mint(), annotations={"env": "test"}, **span)) == []
    with pytest.raises(RoomException, match="Status code: 401"):
        asyncio.run(read(mint(key_id=KEY_ID, secret=OTHER_SIGNING_SECRET)))


def test_annotations_stay_here(tmp_path: Any) -> None:
    simulator = Simulator()
    with running_simulator(simulator) as url, running_proxy(tmp_path, url) as running:
        call(running, "/openai/v1/chat/completions", CHAT, mint(), {"X-Meshagent-Annotation-Env": "prod"})

    (seen,) = simulator.requests
    assert not [name for name in dict(seen.headers) if "annotation" in name.lower()]
