"""Budgets are shown and changed at run time: by command, on the admin port, and by project admins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from tests.harness import ADMIN_TOKEN, PROJECT, TIMEOUT_S, ProxyProcess, mint, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.test_budgets import COST, RESPONSE, open_budgets, post, post_until_settled, project
from tornado_proxy.cli import main
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import CostBound

BUDGETS = [{"period": "month", "usd": "0.0006"}, {"period": "day", "usd": "1", "per": "participant"}]


@pytest.fixture
def proxy(provider: ReplayProvider, tmp_path: Path) -> Iterator[ProxyProcess]:
    """A server whose project has spent the 0.0006 USD of its month with one request."""
    provider.response = ProviderResponse(chunks=(RESPONSE,))
    with running_proxy(tmp_path, provider.url, projects=[project(budgets=BUDGETS)]) as running:
        assert post(running, "ada").status_code == 200
        assert post_until_settled(running, "ada").status_code == 402
        yield running


def run_budget(proxy: ProxyProcess, *arguments: str) -> Any:
    """Run `tornado-proxy budget` with JSON output and return its document."""
    options = ("--config", str(proxy.ledger.with_name("proxy.yaml")), "--format", "json")
    result = CliRunner().invoke(main, ["budget", *arguments, *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["budgets"]


def request_admin(proxy: ProxyProcess, method: str, query: str = "", body: object = None) -> httpx.Response:
    """Send a request to the budgets of the admin port."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    content = None if body is None else json.dumps(body)
    return httpx.request(
        method, f"{proxy.admin_url}/v1/budgets{query}", headers=headers, content=content, timeout=TIMEOUT_S
    )


def wait_for_status(proxy: ProxyProcess, status: int) -> None:
    """Send requests until one has this status."""
    wait_until(lambda: post(proxy, "ada").status_code == status, f"status {status}")


def test_command_raises_a_budget_and_restores_it(proxy: ProxyProcess) -> None:
    (changed,) = run_budget(proxy, "set", PROJECT, "--period", "month", "--usd", "800")

    assert (changed["limit"], changed["configured_limit"], changed["source"]) == ("800", "0.0006", "state")
    assert changed["until"] == changed["end"]
    wait_for_status(proxy, 200)
    line = json.loads(proxy.wait_for_log('"action":"budget set"'))
    assert (line["subject"], line["actor"].split(":")[0]) == (PROJECT, "cli")

    (restored,) = run_budget(proxy, "set", PROJECT, "--period", "month", "--restore")

    assert (restored["limit"], restored["source"], restored["until"]) == ("0.0006", "configuration", None)
    wait_for_status(proxy, 402)


def test_command_lifts_a_budget_until_a_time(proxy: ProxyProcess) -> None:
    (lifted,) = run_budget(proxy, "lift", PROJECT, "--period", "month", "--until", "4s")

    assert (lifted["limit"], lifted["source"]) == (None, "state")
    wait_for_status(proxy, 200)
    wait_for_status(proxy, 402)


def test_command_shows_what_was_spent_and_explains_reservations(proxy: ProxyProcess) -> None:
    run_budget(proxy, "lift", PROJECT, "--period", "month")
    wait_for_status(proxy, 200)
    wait_until(lambda: len(proxy.read_records()) == 2, "both records")
    shown = run_budget(proxy, "show", PROJECT)

    assert [(row["per"], row["participant"], row["settled"], row["reserved"], row["held"]) for row in shown] == [
        ("project", None, str(2 * COST), "0", "0"),
        ("participant", "ada", str(2 * COST), "0", "0"),
    ]

    # A request that another process of the ledger has under way.
    now = datetime.now(UTC)
    spender = Spender(PROJECT, "ada")
    budget = Budget(CounterKind(Scope.PROJECT, Period.MONTH), Decimal(1))
    bound = CostBound(Decimal("0.25"), Decimal("0.2"))
    with open_budgets(proxy) as store:
        store.register()
        store.reserve([Reservation("req_far", BudgetedSpender(spender, (budget,)), bound, now)])

        explained = run_budget(proxy, "explain", PROJECT)
        text = CliRunner().invoke(
            main, ["budget", "explain", PROJECT, "--config", str(proxy.ledger.with_name("proxy.yaml"))]
        )

    assert [row["reserved"] for row in explained] == ["0.25", "0"]
    (reservation,) = explained[0]["reservations"]
    assert (reservation["request_id"], reservation["state"], reservation["usd"]) == ("req_far", "open", "0.25")
    assert 0 <= reservation["age_s"] <= TIMEOUT_S
    assert "req_far  open  0.25 USD" in text.output
    listed = CliRunner().invoke(main, ["budget", "list", "--config", str(proxy.ledger.with_name("proxy.yaml"))])
    assert "per participant of each day" in listed.output

    # The text of a client cannot write to the terminal.
    each = Budget(CounterKind(Scope.PARTICIPANT, Period.DAY), Decimal(1))
    eve = Spender(PROJECT, "eve\x1b[2J")
    with open_budgets(proxy) as store:
        store.register()
        store.reserve([Reservation("req_eve", BudgetedSpender(eve, (each,)), CostBound(Decimal(1), Decimal(1)), now)])
        command = ["budget", "explain", PROJECT, "--config", str(proxy.ledger.with_name("proxy.yaml"))]
        text = CliRunner().invoke(main, command, color=True)  # as on a terminal
    assert "participant eve" in text.output
    assert "\x1b" not in text.output


def test_explain_lists_the_oldest_reservations_and_sums_the_others(proxy: ProxyProcess) -> None:
    now = datetime.now(UTC)
    budgeted = BudgetedSpender(Spender(PROJECT, "ada"), (Budget(CounterKind(Scope.PROJECT, Period.MONTH), Decimal(1)),))
    bound = CostBound(Decimal("0.001"), Decimal("0.001"))
    command = ["budget", "explain", "first", "--config", str(proxy.ledger.with_name("proxy.yaml"))]
    with open_budgets(proxy) as store:
        store.register()
        store.reserve([Reservation(f"req_{at}", budgeted, bound, now - timedelta(seconds=at)) for at in range(102)])

        month, day = run_budget(proxy, "explain", "first")
        text = CliRunner().invoke(main, command).output
        shown = request_admin(proxy, "GET", "?project=first").json()["budgets"]

    assert [entry["request_id"] for entry in month["reservations"]] == [f"req_{at}" for at in range(101, 1, -1)]
    assert month["other_reservations"] == {"count": 2, "usd": "0.002"}
    assert (day["reservations"], day["other_reservations"]) == ([], {"count": 0, "usd": "0"})
    assert text.count("other reservation") == 1
    assert "  2 other reservations  0.002 USD" in text.splitlines()
    assert [(row["reserved"], row["held"]) for row in shown] == [("0.102", "0"), ("0", "0")]


def test_admin_port_shows_sets_and_lifts_budgets(proxy: ProxyProcess) -> None:
    shown = request_admin(proxy, "GET", f"?project={PROJECT}").json()["budgets"]
    assert request_admin(proxy, "GET", "?project=first").json()["budgets"] == shown
    assert [(row["limit"], row["settled"]) for row in shown] == [("0.0006", str(COST)), ("1", str(COST))]

    dry = request_admin(proxy, "PUT", "?dry_run=1", {"project": PROJECT, "period": "month", "limit": "800"})
    assert dry.json() == {"dry_run": True}
    assert post(proxy, "ada").status_code == 402

    body = {"project": "first", "period": "month", "limit": "800"}
    (changed,) = request_admin(proxy, "PUT", "", body).json()["budgets"]
    assert (changed["limit"], changed["changed_by"]) == ("800", "admin")
    assert post(proxy, "ada").status_code == 200  # this process applies its own change at once

    # One participant's limit replaces that of all, and is below what it has spent.
    body = {"project": PROJECT, "period": "day", "participant": "ada", "limit": "0.0001", "until": "never"}
    assert request_admin(proxy, "PUT", "", body).status_code == 200
    assert post_until_settled(proxy, "ada").status_code == 402
    assert post(proxy, "grace").status_code == 200

    (lifted,) = request_admin(proxy, "DELETE", "?project=first&period=day&participant=ada").json()["budgets"]
    assert lifted["limit"] is None
    assert post(proxy, "ada").status_code == 200


@pytest.mark.parametrize(
    ("members", "status", "reason"),
    [
        ({"period": "week"}, 404, "its budgets are: per project of each month, per participant of each day"),
        ({"project": "no such"}, 404, "no project has the id or name 'no such'"),
        ({"limit": "1e3"}, 400, "limit '1e3' must be a decimal"),
        ({"participant": "ada"}, 400, "a budget per project of each month has no participant"),
        ({"until": "2020-01-01T00:00:00Z"}, 400, "which is past"),
        ({"limits": "1"}, 400, "unknown field"),
    ],
)
def test_change_that_names_no_budget_is_refused(
    members: dict[str, str], status: int, reason: str, proxy: ProxyProcess
) -> None:
    body = {"project": PROJECT, "period": "month", "limit": "800", **members}

    response = request_admin(proxy, "PUT", "", body)

    assert response.status_code == status
    assert reason in response.json()["error"]["message"]


def test_participant_sees_its_own_budgets_and_changes_none(proxy: ProxyProcess) -> None:
    url = f"{proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/budgets"
    headers = {"Authorization": f"Bearer {mint(name='ada')}"}

    own = httpx.get(url, headers=headers, timeout=TIMEOUT_S)
    other = httpx.get(url, headers={"Authorization": f"Bearer {mint(name='grace')}"}, timeout=TIMEOUT_S)
    change = httpx.put(url, headers=headers, json={"period": "month", "limit": "800"}, timeout=TIMEOUT_S)

    assert [(row["per"], row["participant"], row["settled"]) for row in own.json()["budgets"]] == [
        ("participant", "ada", str(COST))
    ]
    assert other.json() == {"budgets": []}
    assert (change.status_code, change.json()["error"]["code"]) == (403, "not_allowed")
    assert post(proxy, "ada").status_code == 402


def test_spent_budget_has_a_log_line_and_a_metric(proxy: ProxyProcess) -> None:
    line = json.loads(proxy.wait_for_log("budget threshold reached"))

    assert (line["project_id"], line["period"], line["threshold_percent"]) == (PROJECT, "month", 100)
    assert (line["limit_usd"], Decimal(line["settled_usd"])) == ("0.0006", COST)
    assert 'llm_proxy_budget_warnings_total{threshold_percent="100"} 1.0' in proxy.fetch_admin("/metrics")[1]


def test_metrics_show_what_is_spent_of_each_budget(proxy: ProxyProcess) -> None:
    metrics = proxy.fetch_admin("/metrics")[1]

    for per, period, limit in (("project", "month", 0.0006), ("participant", "day", 1.0)):
        labels = f'{{label="",of="total",per="{per}",period="{period}",project_id="{PROJECT}",start=""}}'
        assert f"llm_proxy_budget_spent_usd{labels} {float(COST)}" in metrics
        assert f"llm_proxy_budget_limit_usd{labels} {limit}" in metrics


def test_usage_shows_the_budgets_below_the_sums(proxy: ProxyProcess) -> None:
    config = str(proxy.ledger.with_name("proxy.yaml"))

    shown = CliRunner().invoke(main, ["usage", "--config", config, "--budgets"])
    refused = CliRunner().invoke(main, ["usage", "--config", config, "--budgets", "--format", "csv"])

    assert shown.exit_code == 0
    assert "gpt-4o-mini" in shown.output
    assert "per project of each month" in shown.output
    assert str(COST) in shown.output.partition("per project of each month")[2]
    assert (refused.exit_code, "--budgets needs" in refused.output) == (2, True)
