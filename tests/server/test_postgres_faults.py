"""A PostgreSQL ledger whose server, or whose writer, goes away: no record is lost or counted twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.harness import mint, mint_for_other_project, run_serve, running_proxy, wait_until
from tests.postgres_server import PostgresServer, running_postgres
from tests.server.blocking_provider import BlockingProvider, chat, request_in_flight, running_blocking_provider
from tests.server.ledger_checks import (
    SHORT_INTERVALS,
    check_one_entry_each,
    check_one_record_each,
    check_received_are_settled,
    check_rejects_requests,
    wait_ready,
    wait_unready,
)
from tests.server.load import CALLERS, Load
from tornado_proxy.simulator import Simulator, running_simulator


@pytest.fixture
def provider() -> Iterator[BlockingProvider]:
    with running_blocking_provider() as running:
        yield running


@pytest.fixture(scope="module")
def shared_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(shared_postgres: PostgresServer) -> PostgresServer:
    """Return a running server that the test may stop."""
    if shared_postgres.process is None:
        shared_postgres.start()
    return shared_postgres


def read_journal(folder: Path) -> list[str]:
    """Return the participants of the records in the journal beside a PostgreSQL ledger."""
    texts = [file.read_bytes().strip(b"\0\n") for file in folder.glob("ledger-journal/*.jsonl")]
    return [json.loads(line)["participant"] for text in texts for line in text.splitlines()]


def wait_for_journal(folder: Path) -> None:
    """Wait until the record of the request in flight is in the journal."""
    wait_until(lambda: read_journal(folder) == ["held"], "a record in the journal")


def test_restart_of_the_database_loses_and_doubles_nothing(
    postgres: PostgresServer, provider: BlockingProvider, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, ledger={"url": url}) as proxy:
        proxy.ledger_url = url
        assert chat(proxy.base_url, "before").status_code == 200
        with request_in_flight(proxy, provider, "held"):
            postgres.stop()
            wait_unready(proxy)
            check_rejects_requests(proxy)
            assert url in proxy.fetch_admin("/readyz")[1]
            provider.release.set()
        wait_for_journal(tmp_path)
        postgres.start()
        wait_ready(proxy)
        assert chat(proxy.base_url, "after").status_code == 200

        check_one_record_each(proxy.read_records(count=3), ["before", "held", "after"])
        wait_until(lambda: read_journal(tmp_path) == [], "an empty journal")


def test_server_killed_without_its_database_leaves_its_records_to_the_next_one(
    postgres: PostgresServer, provider: BlockingProvider, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, ledger={"url": url}) as proxy:
        with request_in_flight(proxy, provider, "held"):
            postgres.stop(signal.SIGQUIT)
            wait_unready(proxy)
            provider.release.set()
        wait_for_journal(tmp_path)
        proxy.kill()
    failed = run_serve(tmp_path / "proxy.yaml")
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"the ledger cannot be opened: {url}: the server cannot be reached")
    assert len(failed.stderr.splitlines()) == 1

    postgres.start()
    with running_proxy(tmp_path, provider.url, ledger={"url": url}) as restarted:
        restarted.ledger_url = url
        check_one_record_each(restarted.read_records(), ["held"])


def test_kill_under_load_leaves_each_request_with_one_entry(
    postgres: PostgresServer, provider: BlockingProvider, tmp_path: Path
) -> None:
    ledger = {"url": postgres.new_database()}
    with (
        running_proxy(tmp_path, provider.url, ledger=ledger) as proxy,
        Load(proxy.base_url, "pg", streams=True) as load,
    ):
        provider.wait_for_requests(101)
        proxy.kill()

    with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, ledger=ledger) as restarted:
        restarted.ledger_url = ledger["url"]
        check_one_entry_each(restarted, provider, callers=CALLERS)
        check_received_are_settled(restarted.read_records(), load.succeeded)


def test_deferred_usage_is_settled_and_belongs_to_its_project(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    with (
        running_simulator(Simulator(settle_s=0.1)) as upstream,
        running_proxy(tmp_path, upstream, ledger={"url": url}) as proxy,
        httpx.Client(base_url=f"{proxy.base_url}/v1", headers={"Authorization": f"Bearer {mint()}"}) as client,
    ):
        proxy.ledger_url = url
        body = {"model": "gpt-4o-mini", "input": "hi", "background": True}
        created = client.post("/responses", json=body)
        proxy.wait_for_log('"message":"request settled"')

        (record,) = proxy.read_records()
        own = client.get(f"/responses/{created.json()['id']}")
        headers = {"Authorization": f"Bearer {mint_for_other_project()}"}
        other = client.get(f"/responses/{created.json()['id']}", headers=headers)

    assert (record["request_id"], record["basis"]) == (created.headers["llm-proxy-request-id"], "reported")
    usage = own.json()["usage"]
    # 0.15 and 0.60 USD per million tokens.
    cost = (usage["input_tokens"] * Decimal("0.15") + usage["output_tokens"] * Decimal("0.60")) / 1_000_000
    assert Decimal(record["subtotal"]) == cost
    assert other.status_code == 404
