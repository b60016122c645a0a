"""Explanations of records: price entries, warnings, JSON members."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from tests.ledger.sample_records import make_intent, make_record
from tests.reports.rated_records import PRICES, price_book, rated_record, row_of
from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.usage import Basis
from tornado_proxy.pricing.book.calculator import bill
from tornado_proxy.reports.explanation import explain_record

BOOK = price_book()


def test_item_with_today_s_price_has_its_entry_and_no_warning() -> None:
    explanation = explain_record(row_of(rated_record("req_1", BOOK, tier="flex", region="eu")), BOOK)

    first, _ = explanation.items
    assert first.exact
    assert first.entry is not None
    assert first.entry.card.source == "https://prices.example/flex"
    assert [modifier.name for modifier in first.entry.modifiers] == ["eu"]
    assert explanation.surcharge_rate == "0.05"
    assert explanation.warnings == ()


def test_item_whose_price_has_changed_has_a_warning_with_today_s_price() -> None:
    row = row_of(rated_record("req_1", BOOK))

    explanation = explain_record(row, price_book(PRICES.replace('"1.25"', '"2.5"')))

    first, second = explanation.items
    assert (first.entry, second.entry is None) == (None, False)
    assert explanation.warnings == (
        "input_tokens of gpt-5.4: today's price files have another entry, 2.5 per million tokens from "
        "https://prices.example/gpt (2026-02-01)",
    )


def test_item_without_a_price_has_a_warning() -> None:
    unpriced = LineItem("input_audio_tokens", Decimal(7), "", None, None, "gpt-5.4")
    stored = make_record(
        make_intent("req_1"), cost=bill([unpriced], Decimal(0)), basis=Basis.UNSETTLED, faults=("a fault",)
    )

    explanation = explain_record(row_of(stored), BOOK)

    assert explanation.warnings == ("input_audio_tokens of gpt-5.4 has no price; 7 are not charged",)
    assert explanation.faults == ("a fault",)
    assert explanation.items[0].exact


def test_merged_item_of_a_batch_is_not_exact() -> None:
    # 1.5e-12 rounds half-even to 2e-12: the sum of two requests is 4e-12, and not 3e-12.
    merged = LineItem(
        "input_tokens", Decimal(2), "per_million_tokens", Decimal("0.0000015"), Decimal("0.000000000004"), "gpt-5.4"
    )

    (item,) = explain_record(row_of(make_record(make_intent("req_1"), cost=bill([merged], Decimal(0)))), BOOK).items

    assert not item.exact


def test_total_that_differs_from_its_items_has_a_warning() -> None:
    stored = rated_record("req_1", BOOK)

    explanation = explain_record(row_of(replace(stored, cost=replace(stored.cost, total=Decimal(1)))), BOOK)

    assert explanation.warnings == ("the line items add up to 0.002362500000, but the record's total is 1",)


def test_members_contain_the_price_entry_and_the_provider_s_usage() -> None:
    members = explain_record(row_of(rated_record("req_1", BOOK)), BOOK).members()

    first = members["line_items"][0]
    assert (first["type"], first["quantity"], first["unit_price"], first["amount"]) == (
        *("input_tokens", "1000", "1.25", "0.001250000000"),
    )
    assert (first["terms"], first["context_tokens"]) == ({}, 1000)
    assert first["price"] == {
        "model": "gpt-5.4",
        "when": "service_tier standard",
        "price": "1.25",
        "unit": "per_million_tokens",
        "modifiers": [],
        "effective_from": None,
        "effective_until": None,
        "source": "https://prices.example/gpt",
        "checked": "2026-02-01",
    }
    assert members["usage"] == {"prompt_tokens": 1000, "completion_tokens": 100}
    assert (members["basis"], members["basis_words"]) == ("reported", "the provider's own usage")
