"""`tornado-proxy explain`: the bill as text and JSON, and its errors."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from tests.cli.rated_ledger import rated, run, write_ledger, write_prices
from tests.ledger.sample_records import CALLER, make_intent, make_record
from tests.reports.rated_records import PRICES
from tornado_proxy.domain.cost import Cost, LineItem
from tornado_proxy.domain.record import Outcome, RetryFacts
from tornado_proxy.domain.usage import Basis
from tornado_proxy.pricing.book.calculator import bill


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    return write_prices(tmp_path)


def test_bill_shows_usage_prices_sources_and_each_multiplication(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])

    result = run("explain", "req_1", "--ledger", ledger, "--prices", prices)

    assert result.exit_code == 0
    text, lines = result.stdout, result.stdout.splitlines()
    assert "model     gpt-5.4-2026-03-05 (requested: gpt-5.4)" in lines
    assert "basis     reported: the provider's own usage" in lines
    assert '    "prompt_tokens": 1000,' in lines
    # 1000 x 1.25 / 10^6, 100 x 10 / 10^6; 5 % of 0.00225.
    assert "input_tokens   1000 x 1.25 per million tokens = 0.001250000000" in lines
    assert "output_tokens   100 x 10 per million tokens   = 0.001000000000" in lines
    assert text.count("source: https://prices.example/gpt; checked 2026-02-01") == 2
    assert "price: gpt-5.4 (service_tier standard), entry " in text
    assert "subtotal                         0.002250000000" in lines
    assert "surcharge, 0.05 of the subtotal  0.000112500000" in lines
    assert "total USD                        0.002362500000" in lines
    assert "warning" not in text


def test_bill_shows_list_prices_and_the_discount(tmp_path: Path, prices: Path) -> None:
    stored = rated("req_1", prices)
    cost = bill(stored.cost.line_items[:2], Decimal("0.05"), discount_rate=Decimal("0.1"))
    ledger = write_ledger(tmp_path, [structs.replace(stored, cost=cost)])

    result = run("explain", "req_1", "--ledger", ledger, "--prices", prices)
    members = json.loads(run("explain", "req_1", "--ledger", ledger, "--prices", prices, "--format", "json").stdout)

    # 10 % of 0.00225, and 5 % of 0.002025.
    assert result.stdout.splitlines()[-5:] == [
        "list prices                       0.002250000000",
        "discount, 0.1 of the list        -0.000225000000",
        "subtotal                          0.002025000000",
        "surcharge, 0.05 of the subtotal   0.000101250000",
        "total USD                         0.002126250000",
    ]
    assert members["discount"] == {"list": "0.002250000000", "rate": "0.1", "amount": "-0.000225000000"}
    assert "warning" not in result.stdout


def test_bill_names_the_request_that_it_repeats(tmp_path: Path, prices: Path) -> None:
    later = datetime(2026, 3, 3, tzinfo=UTC)
    ledger = write_ledger(
        tmp_path,
        [
            make_record(make_intent("req_1", retry=RetryFacts("hash-1"))),
            make_record(make_intent("req_2", retry=RetryFacts("hash-1", "1"), started_at=later)),
            make_record(make_intent("req_3", retry=RetryFacts(None, "2"))),
        ],
    )

    def repeats(request_id: str) -> list[str]:
        text = run("explain", request_id, "--ledger", ledger, "--prices", prices).stdout
        return [line for line in text.splitlines() if line.startswith("repeats")]

    members = json.loads(run("explain", "req_2", "--ledger", ledger, "--prices", prices, "--format", "json").stdout)
    assert repeats("req_1") == []
    assert repeats("req_2") == ["repeats   req_1, by its idempotency key"]
    assert repeats("req_3") == ["repeats   an earlier request: retry 2 of the client"]
    assert (members["retry_of"], members["retry_count"]) == ("req_1", "1")


def test_bill_shows_the_terms_that_selected_a_price(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices, tier="flex", region="eu")])

    text = run("explain", "req_1", "--ledger", ledger, "--prices", prices).stdout

    # 0.625 x 1.1
    assert "1000 x 0.6875 per million tokens = 0.000687500000" in text
    assert "on: provider_region eu, service_tier flex, 1000 input tokens in all" in text
    assert "0.625 x 1.1: eu (provider_region eu)" in text
    assert "price: gpt-5.4 (service_tier flex), entry " in text


def test_changed_price_is_marked(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    write_prices(tmp_path, PRICES.replace('"1.25"', '"2.5"'))

    result = run("explain", "req_1", "--ledger", ledger, "--prices", prices)

    assert result.exit_code == 0
    assert "1000 x 1.25 per million tokens = 0.001250000000" in result.stdout
    assert "which today's price files do not have" in result.stdout
    assert (
        "warning: input_tokens of gpt-5.4: today's price files have another entry, 2.5 per million tokens from "
        "https://prices.example/gpt (2026-02-01)"
    ) in result.stdout.splitlines()
    assert result.stdout.count("warning") == 1


def test_removed_model_is_marked(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    write_prices(tmp_path, PRICES.replace("gpt-5.4", "gpt-9"))

    result = run("explain", "req_1", "--ledger", ledger, "--prices", prices)

    assert "today's price files have no price for it (gpt-5.4 has no prices)" in result.stdout


def test_json_has_the_same_values(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices, tier="flex")])

    bill_shown = json.loads(run("explain", "req_1", "--ledger", ledger, "--prices", prices, "--format", "json").stdout)

    first = bill_shown["line_items"][0]
    assert (first["type"], first["quantity"], first["unit_price"], first["amount"]) == (
        "input_tokens",
        "1000",
        "0.625",
        "0.000625000000",
    )
    assert first["terms"] == {"service_tier": "flex"}
    assert first["price"]["source"] == "https://prices.example/flex"
    assert first["price"]["checked"] == "2026-02-02"
    assert (bill_shown["surcharge_rate"], bill_shown["total"]) == ("0.05", "0.001181250000")
    assert bill_shown["usage"] == {"prompt_tokens": 1000, "completion_tokens": 100}
    assert bill_shown["warnings"] == []


def test_uncharged_quantity_is_a_warning(tmp_path: Path, prices: Path) -> None:
    unpriced = LineItem("input_audio_tokens", Decimal(7), "", None, None, "gpt-5.4")
    unpriced_record = make_record(
        make_intent("req_1"),
        cost=bill([unpriced], Decimal("0.05")),
        basis=Basis.UNSETTLED,
        faults=("no price for audio",),
    )
    ledger = write_ledger(tmp_path, [unpriced_record])

    text = run("explain", "req_1", "--ledger", ledger, "--prices", prices).stdout

    assert "input_audio_tokens  7 x no price = not charged" in text
    assert "fault: no price for audio" in text
    assert "warning: input_audio_tokens of gpt-5.4 has no price; 7 are not charged" in text


def test_free_request_costs_nothing(tmp_path: Path, prices: Path) -> None:
    free = Cost((), Decimal(0), Decimal(0), Decimal(0))
    ledger = write_ledger(tmp_path, [make_record(make_intent("req_1"), cost=free, basis=Basis.FREE, usage=None)])

    text = run("explain", "req_1", "--ledger", ledger, "--prices", prices).stdout

    assert "Nothing was charged.\ntotal 0 USD\n" in text


@pytest.mark.parametrize(
    ("basis", "expected"), [(Basis.PENDING, "Nothing is charged yet"), (Basis.UNSETTLED, "The cost is not known")]
)
def test_unknown_cost_is_not_printed_as_nothing(tmp_path: Path, prices: Path, basis: Basis, expected: str) -> None:
    nothing = Cost((), Decimal(0), Decimal(0), Decimal(0))
    ledger = write_ledger(tmp_path, [make_record(make_intent("req_1"), cost=nothing, basis=basis, usage=None)])

    text = run("explain", "req_1", "--ledger", ledger, "--prices", prices).stdout

    assert f"\n{expected}" in text
    assert "Nothing was charged" not in text


def test_crashed_request_has_no_duration(tmp_path: Path, prices: Path) -> None:
    nothing = Cost((), Decimal(0), Decimal(0), Decimal(0))
    crashed = make_record(
        make_intent("req_1"), cost=nothing, basis=Basis.UNSETTLED, outcome=Outcome.CRASHED, status=None
    )
    ledger = write_ledger(tmp_path, [crashed])

    text = run("explain", "req_1", "--ledger", ledger, "--prices", prices).stdout

    assert "time      2026-03-02T10:00:00.123Z, its end is not known\n" in text
    assert "outcome   crashed, status none\n" in text


def test_control_characters_of_clients_are_replaced(tmp_path: Path, prices: Path) -> None:
    caller = replace(CALLER, participant="\x1b[2Jada\rbob")
    ledger = write_ledger(tmp_path, [make_record(make_intent("req_1", caller=caller))])

    text = run("explain", "req_1", "--ledger", ledger, "--prices", prices).stdout

    assert "participant �[2Jada�bob" in text


def test_unknown_request_exits_with_1(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])

    result = run("explain", "req_2", "--ledger", ledger, "--prices", prices)

    assert result.exit_code == 1
    assert f"req_2 is not in {tmp_path}/" in result.stderr
    assert "Llm-Proxy-Request-Id" in result.stderr


def test_provider_s_own_id_finds_the_request(tmp_path: Path, prices: Path) -> None:
    records = [rated("req_1", prices), rated("req_2", prices), rated("req_3", prices)]
    ids = ["req_011CTk8n", "6e3e2a1f-chat", "6e3e2a1f-chat"]
    ledger = write_ledger(
        tmp_path,
        [structs.replace(record, upstream_request_id=id_) for record, id_ in zip(records, ids, strict=True)],
    )

    anthropic = run("explain", "req_011CTk8n", "--ledger", ledger, "--prices", prices)
    session = run("explain", "6e3e2a1f-chat", "--ledger", ledger, "--prices", prices)
    members = json.loads(
        run("explain", "6e3e2a1f-chat", "--ledger", ledger, "--prices", prices, "--format", "json").stdout
    )

    assert anthropic.stdout.startswith("request   req_1\n")
    assert [line for line in session.stdout.splitlines() if line.startswith("request ")] == [
        "request   req_2",
        "request   req_3",
    ]
    assert [record["request_id"] for record in members] == ["req_2", "req_3"]


def test_refused_request_is_said_to_be_refused_and_not_billed(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    refused = "req_" + "0a" * 16

    result = run("explain", refused, "--ledger", ledger, "--prices", prices)

    assert result.exit_code == 1
    assert f"{refused} is not in" in result.stderr
    assert "refused, not billed" in result.stderr


def test_request_that_still_runs_is_not_said_to_be_refused(tmp_path: Path, prices: Path) -> None:
    running = "req_" + "1b" * 16
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute(
            "INSERT INTO intents (request_id, project_id, provider, endpoint, method, started_at, writer) "
            "VALUES (?, 'p', 'openai', '/v1/responses', 'POST', '2026-11-28T12:00:00.000000Z', 'w')",
            (running,),
        )
    database.close()

    result = run("explain", running, "--ledger", ledger, "--prices", prices)

    assert result.exit_code == 1
    assert f"{running} still runs" in result.stderr


def test_missing_ledger_or_price_file_exits_with_1(tmp_path: Path, prices: Path) -> None:
    no_ledger = run("explain", "req_1", "--ledger", f"sqlite:///{tmp_path}/none.db", "--prices", prices)
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    no_prices = run("explain", "req_1", "--ledger", ledger, "--prices", tmp_path / "none.yaml")

    assert (no_ledger.exit_code, no_prices.exit_code) == (1, 1)
    assert "there is no ledger" in no_ledger.stderr
    assert "none.yaml" in no_prices.stderr


def test_ledger_without_configuration_uses_the_bundled_prices(
    tmp_path: Path, prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    monkeypatch.chdir(tmp_path)

    result = run("explain", "req_1", "--ledger", ledger)

    assert result.exit_code == 0
    assert "today's price files have another entry" in result.stdout
