"""`tornado-proxy recompute`: printed differences and sums."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from tests.cli.rated_ledger import rated, run, write_ledger, write_prices
from tests.ledger.sample_records import make_intent, make_record, read_rows
from tests.reports.rated_records import PRICES, USAGE
from tornado_proxy.domain.cost import Cost, LineItem, merge_items
from tornado_proxy.domain.usage import Basis
from tornado_proxy.pricing.book.calculator import bill

NOTHING = Cost((), Decimal(0), Decimal(0), Decimal(0))


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    return write_prices(tmp_path)


def raise_price(folder: Path) -> None:
    """Double the price of standard input."""
    write_prices(folder, PRICES.replace('"1.25"', '"2.5"'))


def test_same_prices_give_no_difference(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices), rated("req_2", prices, tier="flex", region="eu")])

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert (result.exit_code, result.stderr) == (0, "")
    # 0.0023625 and, at flex in the EU, (0.0006875 + 0.00055) x 1.05 = 0.001299375.
    assert result.stdout == (
        "2 records: 0 differ, 0 cannot be rated today, 0 pending\n"
        "billed 0.003661875000 USD, today 0.003661875000 USD, difference 0.000000000000 USD\n"
    )


def test_changed_price_is_printed_per_record_and_in_total(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices), rated("req_2", prices, tier="flex")])
    raise_price(tmp_path)

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    # 1000 x 1.25 / 10^6 more, and 5 % of it.
    assert result.stdout.splitlines() == [
        "req_1  2026-03-02 10:00  gpt-5.4-2026-03-05  billed 0.002362500000  today 0.003675000000  "
        "difference +0.001312500000",
        "    input_tokens of gpt-5.4: 1.25 per million tokens, today 2.5 per million tokens",
        "2 records: 1 differ, 0 cannot be rated today, 0 pending",
        "billed 0.003543750000 USD, today 0.004856250000 USD, difference +0.001312500000 USD",
    ]


def test_difference_is_printed_per_project(tmp_path: Path, prices: Path) -> None:
    first = rated("req_1", prices)
    caller = replace(first.intent.caller, project_id="project-b")
    other = structs.replace(first.intent, request_id="req_2", caller=caller)
    ledger = write_ledger(tmp_path, [first, structs.replace(first, intent=other), rated("req_3", prices, tier="flex")])
    raise_price(tmp_path)

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert result.stdout.splitlines()[-3:] == [
        "billed 0.005906250000 USD, today 0.008531250000 USD, difference +0.002625000000 USD",
        "  project project-a: difference +0.001312500000 USD",
        "  project project-b: difference +0.001312500000 USD",
    ]


def test_option_all_prints_records_without_a_difference(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices), rated("req_2", prices, tier="flex")])
    raise_price(tmp_path)
    arguments = ("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    lines = [json.loads(line) for line in run(*arguments, "--all", "--format", "jsonl").stdout.splitlines()]

    assert [(line["request_id"], line["difference"]) for line in lines] == [
        ("req_1", "0.001312500000"),
        ("req_2", "0.000000000000"),
    ]


def test_csv_has_a_row_per_difference_and_sums_on_standard_error(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    write_prices(tmp_path, PRICES.replace('"1.25"', '"0.25"'))

    result = run(
        "recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices, "--format", "csv"
    )

    (line,) = csv.DictReader(io.StringIO(result.stdout))
    assert (line["project_id"], line["billed"], line["today"]) == ("project-a", "0.002362500000", "0.001312500000")
    # A minus is a number here, not a formula.
    assert line["difference"] == "-0.001050000000"
    assert "1 record: 1 differ" in result.stderr


def test_command_without_dry_run_explains_how_to_correct_bills(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    before = read_rows(tmp_path / "ledger.db")

    result = run("recompute", "--since", "2026-01-01", "--ledger", ledger, "--prices", prices)

    assert result.exit_code == 2
    assert "append-only" in result.stderr
    assert "credit or a debit note" in result.stderr
    assert read_rows(tmp_path / "ledger.db") == before


def test_dry_run_does_not_change_the_ledger(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    raise_price(tmp_path)
    before = (tmp_path / "ledger.db").read_bytes()

    run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert (tmp_path / "ledger.db").read_bytes() == before


def test_since_and_until_select_by_start_time(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    arguments = ("recompute", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert "0 records" in run(*arguments, "--since", "2026-03-03").stdout
    assert "0 records" in run(*arguments, "--since", "2026-01-01", "--until", "2026-03-02").stdout
    assert "1 record:" in run(*arguments, "--since", "2026-03-02", "--until", "2026-03-03").stdout
    assert run(*arguments).exit_code == 2


def test_record_without_a_price_today_adds_no_difference(tmp_path: Path, prices: Path) -> None:
    ledger = write_ledger(tmp_path, [rated("req_1", prices)])
    write_prices(tmp_path, PRICES.replace("gpt-5.4", "gpt-9"))

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert "today -" in result.stdout
    assert "gpt-5.4 has no prices" in result.stdout
    assert "1 cannot be rated today" in result.stdout
    assert "difference 0.000000000000 USD" in result.stdout


def test_unpriced_quantity_is_rated_at_today_s_price(tmp_path: Path, prices: Path) -> None:
    item = LineItem("input_tokens", Decimal(1000), "", None, None, "gpt-5.4", terms=(("service_tier", "flex"),))
    unpriced_record = make_record(make_intent("req_1"), cost=bill([item], Decimal("0.05")), basis=Basis.UNSETTLED)
    ledger = write_ledger(tmp_path, [unpriced_record])

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    # 1000 x 0.625 / 10^6 and 5 %.
    assert "billed 0.000000000000  today 0.000656250000" in result.stdout
    assert "input_tokens of gpt-5.4: no price, today 0.625 per million tokens" in result.stdout


def test_stored_usage_that_was_not_rated_is_parsed_again(tmp_path: Path, prices: Path) -> None:
    lost = make_record(
        make_intent("req_1"), cost=NOTHING, basis=Basis.UNSETTLED, usage=USAGE, faults=("rating failed",)
    )
    unknown = make_record(make_intent("req_2"), cost=NOTHING, basis=Basis.UNSETTLED, usage=None, faults=("no answer",))
    ledger = write_ledger(tmp_path, [lost, unknown])

    result = run(
        *("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices),
        *("--config", tmp_path / "none.yaml"),
    )

    # Without a configuration the surcharge rate is 0: 0.00125 + 0.001.
    assert "billed 0  today 0.002250000000" in result.stdout
    assert "rated now from the provider's usage" in result.stdout
    assert "its usage is not known (no answer)" in result.stdout
    assert "req_2  2026-03-02 10:00  gpt-5.4-2026-03-05  billed 0  today -  difference -" in result.stdout
    assert "2 records: 1 differ, 1 cannot be rated today" in result.stdout


def test_free_and_pending_requests_add_no_difference(tmp_path: Path, prices: Path) -> None:
    free = make_record(make_intent("req_1"), cost=NOTHING, basis=Basis.FREE)
    pending = make_record(make_intent("req_2"), cost=NOTHING, basis=Basis.PENDING)
    ledger = write_ledger(tmp_path, [free, pending])

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert result.stdout.startswith("2 records: 0 differ, 0 cannot be rated today, 1 pending\n")


def test_line_item_of_a_batch_keeps_its_rounded_amount(tmp_path: Path) -> None:
    # 1 token at 0.0000015 a million is 1.5e-12, which rounds half-even to 2e-12: three of them are 6e-12, not 4.5e-12.
    prices = write_prices(tmp_path, PRICES.replace('"1.25"', '"0.0000015"'))
    item = LineItem(
        "input_tokens", Decimal(1), "per_million_tokens", Decimal("0.0000015"), Decimal("0.000000000002"), "gpt-5.4"
    )
    ledger = write_ledger(tmp_path, [make_record(make_intent("req_1"), cost=merge_items(bill([item] * 3, Decimal(0))))])

    result = run("recompute", "--since", "2026-01-01", "--dry-run", "--ledger", ledger, "--prices", prices)

    assert result.stdout.startswith("1 record: 0 differ")
