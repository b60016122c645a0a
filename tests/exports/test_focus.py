"""`usage --format focus` passes a check of columns, types and rules that was written from FOCUS 1.4.

The tables are typed from the specification's pages of the Cost and Usage dataset, not from the code.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from tests.cli.rated_ledger import write_ledger
from tests.exports.generated_ledger import write_generated_ledger
from tests.ledger.sample_records import COST, make_intent, make_record
from tornado_proxy.cli import main
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import EXACT, UsageFilter
from tornado_proxy.pricing.book.calculator import bill

RECORDS = int(os.environ.get("EXPORT_RECORDS", "2000"))

Row = dict[str, str]


def is_decimal(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is not None


def is_time(text: str) -> bool:
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", text) is not None


def is_object(text: str) -> bool:
    return isinstance(json.loads(text), dict)


def is_unit(text: str) -> bool:
    return re.fullmatch(r"([1-9][0-9]* )?[A-Z][A-Za-z]*s", text) is not None


def is_text(text: str) -> bool:
    return text.isprintable()


def is_one_of(*allowed: str) -> Callable[[str], bool]:
    return lambda text: text in allowed


#: Columns that must not be null, with their types.
NOT_NULL = {
    "BilledCost": is_decimal,
    "BillingAccountId": is_text,
    "BillingCurrency": is_one_of("USD"),
    "BillingPeriodEnd": is_time,
    "BillingPeriodStart": is_time,
    "ChargeCategory": is_one_of("Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    "ChargePeriodEnd": is_time,
    "ChargePeriodStart": is_time,
    "ContractedCost": is_decimal,
    "EffectiveCost": is_decimal,
    "HostProviderName": is_text,
    "InvoiceIssuerName": is_text,
    "ListCost": is_decimal,
    "ServiceCategory": is_one_of("AI and Machine Learning"),
    "ServiceName": is_text,
    "ServiceProviderName": is_text,
    "ServiceSubcategory": is_one_of("AI Platforms", "Bots", "Generative AI", "Machine Learning"),
}

#: Columns that may be null, with their types.
NULLABLE = {
    "BillingAccountName": is_text,
    "BillingAccountType": is_text,
    "ChargeClass": is_one_of("Correction"),
    "ChargeDescription": is_text,
    "ChargeFrequency": is_one_of("One-Time", "Recurring", "Usage-Based"),
    "ConsumedQuantity": is_decimal,
    "ConsumedUnit": is_unit,
    "ContractedUnitPrice": is_decimal,
    "InvoiceDetailId": is_text,
    "InvoiceId": is_text,
    "ListUnitPrice": is_decimal,
    "PricingCategory": is_one_of("Standard", "Dynamic", "Committed", "Other"),
    "PricingQuantity": is_decimal,
    "PricingUnit": is_unit,
    "RegionId": is_text,
    "RegionName": is_text,
    "ResourceId": is_text,
    "ResourceName": is_text,
    "ResourceType": is_text,
    "SkuId": is_text,
    "SkuMeter": is_text,
    "SkuPriceDetails": is_object,
    "SkuPriceId": is_text,
    "SubAccountId": is_text,
    "SubAccountName": is_text,
    "SubAccountType": is_text,
    "Tags": is_object,
}

#: Columns of usage that is no correction, which must not be null; null if SkuPriceId is null.
PRICED = ("ConsumedQuantity", "ConsumedUnit", "ListUnitPrice", "PricingQuantity", "PricingUnit", "SkuId", "SkuPriceId")

#: Amounts are rounded to 12 decimals, and a line of several requests request by request.
ROUNDING = Decimal("0.000000000002")


def check_row(row: Row) -> None:
    """Fail if a row breaks a rule of the specification."""
    for name, is_valid in NOT_NULL.items():
        assert is_valid(row[name]), (name, row)
    for name, is_valid in NULLABLE.items():
        assert row[name] == "" or is_valid(row[name]), (name, row)
    if row["ChargeCategory"] == "Usage" and not row["ChargeClass"]:
        assert all(row[name] for name in (*PRICED, "PricingCategory")), row
    if not row["SkuPriceId"]:
        assert not any(row[name] for name in (*PRICED, "ContractedUnitPrice", "SkuPriceDetails")), row
    if row["SkuPriceDetails"]:
        assert all(name.startswith("x_") for name in json.loads(row["SkuPriceDetails"]))
    check_costs(row)
    check_periods(row)


def check_costs(row: Row) -> None:
    if row["PricingQuantity"]:
        quantity = Decimal(row["PricingQuantity"])
        for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
            assert Decimal(row[price]) >= 0
            assert abs(quantity * Decimal(row[price]) - Decimal(row[cost])) <= ROUNDING, row
    # No charge covers another one, and nothing is negotiated on top of the contract.
    assert row["BilledCost"] == row["EffectiveCost"] == row["ContractedCost"]
    assert Decimal(row["ContractedCost"]) <= Decimal(row["ListCost"])


def check_periods(row: Row) -> None:
    start, end, month, next_month = (
        datetime.fromisoformat(row[name])
        for name in ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd")
    )
    assert start < end
    assert (month.day, month.hour, month.minute, next_month.day) == (1, 0, 0, 1)
    assert (next_month.year * 12 + next_month.month) - (month.year * 12 + month.month) == 1
    assert (start < month) if row["ChargeClass"] else (month <= start < next_month), row


def print_focus(ledger: str, *arguments: str) -> list[Row]:
    result = CliRunner().invoke(main, ["usage", "--ledger", ledger, "--format", "focus", *arguments])
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("focus") / "ledger.db"
    write_generated_ledger(path, RECORDS)
    return path


@pytest.fixture(scope="module")
def rows(ledger: Path) -> list[Row]:
    return print_focus(f"sqlite:///{ledger}")


def test_columns_are_those_of_the_specification_then_our_own(rows: list[Row]) -> None:
    names = list(rows[0])
    own = [name for name in names if name.startswith("x_")]

    assert names == sorted({*NOT_NULL, *NULLABLE}) + own
    assert all(re.fullmatch(r"x_[A-Z][A-Za-z]*", name) for name in own)
    assert len(set(names)) == len(names)


def test_every_row_keeps_the_rules_of_the_specification(rows: list[Row]) -> None:
    for row in rows:
        check_row(row)

    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Adjustment"}
    assert {row["ChargeClass"] for row in rows} == {"", "Correction"}


def test_costs_add_up_to_the_sums_of_usage(ledger: Path, rows: list[Row]) -> None:
    (usage,) = sum_records(make_backend(ledger), UsageFilter(), ())
    billed = surcharge = Decimal(0)
    for row in rows:
        billed = EXACT.add(billed, Decimal(row["BilledCost"]))
        if row["SkuMeter"] == "Llm Proxy Surcharge":
            surcharge = EXACT.add(surcharge, Decimal(row["BilledCost"]))

    assert (billed, surcharge) == (usage.total, usage.surcharge)
    unknown = [row for row in rows if row["ChargeDescription"].startswith(("the cost of this request", "the provider"))]
    assert len(unknown) == usage.unsettled + usage.pending > 0


def test_one_request_has_a_row_for_each_charge_at_list_and_contract(tmp_path: Path) -> None:
    cost = bill(COST.line_items[:2], Decimal("0.05"), discount_rate=Decimal("0.1"))
    intent = make_intent("req_1", labels={"team": "=red"}, annotations=(("ticket", "T1"),))
    ledger = write_ledger(tmp_path, [make_record(intent, cost=cost)])

    read, written, surcharge = print_focus(ledger)

    # 1000 at 1.25 and 100 at 10 USD a million, less 10 %; 5 % of 0.002025.
    assert [read[name] for name in ("ListCost", "ContractedCost", "BilledCost", "EffectiveCost")] == [
        "0.00125",
        *["0.001125000000"] * 3,
    ]
    assert (read["PricingQuantity"], read["PricingUnit"]) == ("0.001", "1000000 Tokens")
    assert (read["ListUnitPrice"], read["ContractedUnitPrice"]) == ("1.25", "1.125")
    assert (read["ConsumedQuantity"], read["ConsumedUnit"], read["SkuMeter"]) == ("1000", "Tokens", "Input Tokens")
    assert (read["SkuId"], read["SkuPriceId"]) == ("openai/gpt-5.4/input_tokens", "h1")
    assert (written["ListCost"], written["BilledCost"]) == ("0.001", "0.000900000000")
    assert (surcharge["ServiceName"], surcharge["ServiceProviderName"]) == ("LLM proxy", "tornado-proxy")
    assert (surcharge["ListUnitPrice"], surcharge["BilledCost"]) == ("0.05", "0.000101250000")
    assert (read["BillingAccountId"], read["SubAccountId"], read["SubAccountType"]) == (
        "project-a",
        "ada",
        "Participant",
    )
    assert json.loads(read["Tags"]) == {"annotation/ticket": "T1", "team": "=red"}
    assert (read["ChargePeriodStart"], read["ChargePeriodEnd"]) == ("2026-03-02T10:00:00Z", "2026-03-02T10:00:02Z")
    assert (read["BillingPeriodStart"], read["BillingPeriodEnd"]) == ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")
    assert {row["x_RequestId"] for row in (read, written, surcharge)} == {"req_1"}


def test_discount_is_shared_without_losing_a_digit(tmp_path: Path) -> None:
    # Three items of 1e-12 less a third: 1e-12 of discount, which no equal share can show.
    item = replace(COST.line_items[0], quantity=Decimal(1), amount=Decimal("0.000000000001"))
    cost = bill([item] * 3, Decimal(0), discount_rate=Decimal("0.333333"))
    ledger = write_ledger(tmp_path, [make_record(make_intent("req_1"), cost=cost)])

    assert [row["BilledCost"] for row in print_focus(ledger)] == ["0.000000000001", "0.000000000000", "0.000000000001"]
    assert cost.total == Decimal("0.000000000002")


@pytest.mark.parametrize("arguments", [["--group-by", "day"], ["--cache"], ["--api", "http://127.0.0.1:1"]])
def test_focus_has_no_groups(ledger: Path, arguments: list[str]) -> None:
    where = [] if "--api" in arguments else ["--ledger", f"sqlite:///{ledger}"]
    result = CliRunner().invoke(main, ["usage", *where, "--format", "focus", *arguments])

    assert result.exit_code == 2
    assert "--format focus reads a ledger" in result.stderr
