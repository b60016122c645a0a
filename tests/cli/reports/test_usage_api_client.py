"""`tornado-proxy usage --api` against a real server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal

import httpx2 as httpx
import pytest
from click.testing import CliRunner, Result

from tests.harness import PROJECT, ProxyProcess, mint, running_proxy
from tornado_proxy.cli import main
from tornado_proxy.domain.text import format_sum
from tornado_proxy.simulator import Simulator, running_simulator


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_simulator(Simulator()) as url, running_proxy(tmp_path_factory.mktemp("api"), url) as running:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": f"Bearer {mint()}"}
        url = f"{running.base_url}/openai/v1/chat/completions"
        assert httpx.post(url, json=body, headers=headers, timeout=30).status_code == 200
        assert running.read_records(count=1)
        yield running


def usage(proxy: ProxyProcess, *arguments: str, token: str | None = None) -> Result:
    runner = CliRunner(env={"TOKEN": mint() if token is None else token})
    return runner.invoke(main, ["usage", "--api", proxy.base_url, "--token-env", "TOKEN", *arguments])


def test_own_usage_is_printed_row_by_row(proxy: ProxyProcess) -> None:
    (record,) = proxy.read_records()
    items = [
        (item["type"], format_sum(Decimal(item["quantity"])), format_sum(Decimal(item["amount"])))
        for item in record["line_items"]
    ]

    lines = usage(proxy, "--format", "jsonl", "--since", "1h").stdout.splitlines()
    listed = json.loads(usage(proxy, "--format", "json").stdout)
    table = usage(proxy, "--group-by", "day,room").stdout

    assert sorted((row["type"], row["quantity"], row["total"]) for row in map(json.loads, lines)) == sorted(items)
    assert [json.loads(line) for line in lines] == listed
    assert Decimal(table.splitlines()[-2].strip("│ ").split("│")[-1]) == Decimal(record["total"])


def test_csv_has_the_groups_as_columns(proxy: ProxyProcess) -> None:
    rows = list(csv.DictReader(io.StringIO(usage(proxy, "--group-by", "participant", "--format", "csv").stdout)))

    assert list(rows[0]) == [
        *("participant", "requests", "subtotal", "surcharge", "total", "unsettled", "pending"),
    ]
    assert {row["participant"] for row in rows} == {"ada"}
    assert sum(Decimal(row["total"]) for row in rows) == Decimal(proxy.read_records()[0]["total"])


@pytest.mark.parametrize("selection", [("--model", "none"), ("--retries",)])
def test_no_usage_is_an_empty_list(proxy: ProxyProcess, selection: tuple[str, ...]) -> None:
    assert json.loads(usage(proxy, "--format", "json", *selection).stdout) == []
    assert usage(proxy, "--model", "none").exit_code == 0


def test_project_is_that_of_the_token_or_of_the_option(proxy: ProxyProcess) -> None:
    assert usage(proxy, "--project", PROJECT).exit_code == 0

    other = usage(proxy, "--project", "another")

    assert (other.exit_code, "your token is for another project" in other.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "token", "status", "message"),
    [
        (("--participant", "bob"), None, 1, "the server returned 403: you can read your own usage only"),
        (("--group-by", "colour"), None, 1, "the server returned 400: cannot group by colour"),
        ((), "", 1, "the environment variable TOKEN is empty or not set"),
        ((), "not-a-token", 2, "use --project"),
        (("--project", PROJECT), "not-a-token", 1, "the server returned 401"),
        (("--ledger", "sqlite:///x.db"), None, 2, "exclude each other"),
        (("--api", "ftp://x"), None, 2, "is not the URL of a server"),
        (("--api", "http://127.0.0.1:9"), None, 1, "did not respond like a server"),
    ],
)
def test_error_has_a_reason_and_never_the_token(
    proxy: ProxyProcess, arguments: tuple[str, ...], token: str | None, status: int, message: str
) -> None:
    result = usage(proxy, *arguments, token=token)

    assert (result.exit_code, message in result.stderr) == (status, True), result.stderr
    assert not token or token not in result.output


def test_url_of_the_admin_port_has_a_hint(proxy: ProxyProcess) -> None:
    result = usage(proxy, "--api", proxy.admin_url)

    assert result.exit_code == 1
    assert "check that the URL is that of the client port" in result.stderr


@pytest.fixture(scope="module")
def busy_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """Yield a proxy with two responses, each fetched by its id."""
    with running_simulator(Simulator()) as url, running_proxy(tmp_path_factory.mktemp("busy"), url) as running:
        headers = {"Authorization": f"Bearer {mint()}"}
        responses = f"{running.base_url}/openai/v1/responses"
        for model in ("gpt-4o-mini", "gpt-5.4"):
            created = httpx.post(responses, json={"model": model, "input": "hi"}, headers=headers, timeout=30)
            assert created.status_code == 200
            assert httpx.get(f"{responses}/{created.json()['id']}", headers=headers, timeout=30).status_code == 200
        assert running.read_records(count=4)
        yield running


@pytest.mark.parametrize("output_format", ["table", "csv", "json", "jsonl"])
@pytest.mark.parametrize("groups", ["participant", "endpoint", "model,day", "day,project,endpoint", "provider,basis"])
def test_rows_are_those_of_the_ledger(busy_proxy: ProxyProcess, groups: str, output_format: str) -> None:
    options = ("--group-by", groups, "--format", output_format)
    ledger = f"sqlite:///{busy_proxy.folder}/ledger.db"

    from_ledger = CliRunner().invoke(main, ["usage", "--ledger", ledger, *options])

    assert from_ledger.exit_code == 0, from_ledger.stderr
    assert usage(busy_proxy, *options).stdout == from_ledger.stdout


def test_ids_of_objects_are_folded_into_the_endpoint(busy_proxy: ProxyProcess) -> None:
    rows = json.loads(usage(busy_proxy, "--group-by", "endpoint", "--format", "json").stdout)
    items = httpx.get(
        f"{busy_proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/usage?group_by=endpoint",
        headers={"Authorization": f"Bearer {mint()}"},
        timeout=30,
    ).json()["usage"]

    assert [(row["endpoint"], row["requests"]) for row in rows] == [("/v1/responses", 2), ("/v1/responses/{id}", 2)]
    assert {row["endpoint"] for row in items} == {"/v1/responses"}


def test_filter_by_model_selects_the_same_requests(busy_proxy: ProxyProcess) -> None:
    (row,) = json.loads(usage(busy_proxy, "--group-by", "provider", "--model", "gpt-5.4", "--format", "json").stdout)

    assert (row["provider"], row["requests"]) == ("openai", 1)
