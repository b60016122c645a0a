"""Records at today's prices: differences, reasons, sums."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.ledger.sample_records import make_intent, make_record
from tests.providers.openai.costs import bundled_tariff
from tests.reports.rated_records import PRICES, USAGE, price_book, rated_record, row_of
from tornado_proxy.domain.cost import DERIVED_ITEMS, Cost, LineItem
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, ContainerUse, UsageReport
from tornado_proxy.pricing.book.calculator import bill
from tornado_proxy.reports.explanation import explain_record
from tornado_proxy.reports.recompute import COLUMNS, Totals, recompute_record, recompute_records

BOOK = price_book()
RAISED = price_book(PRICES.replace('"1.25"', '"2.5"'))
OTHER_MODEL = price_book(PRICES.replace("gpt-5.4", "gpt-9"))
NOTHING = Cost((), Decimal(0), Decimal(0), Decimal(0))
RATE = Decimal("0.05")


def test_record_at_the_same_prices_does_not_differ() -> None:
    result = recompute_record(row_of(rated_record("req_1", BOOK, tier="flex", region="eu")), BOOK, Decimal(0))

    assert (result.difference, result.differs, result.reasons) == (0, False, ())


def test_raised_price_gives_the_difference_and_its_reason() -> None:
    result = recompute_record(row_of(rated_record("req_1", BOOK)), RAISED, Decimal(0))

    # 1000 x 1.25 / 10^6 more, and 5 % of it.
    assert result.difference == Decimal("0.0013125")
    assert result.reasons == ("input_tokens of gpt-5.4: 1.25 per million tokens, today 2.5 per million tokens",)


def test_discount_of_a_record_is_kept_at_other_prices() -> None:
    stored = rated_record("req_1", BOOK)
    items = [item for item in stored.cost.line_items if item.type not in DERIVED_ITEMS]
    row = row_of(make_record(stored.intent, cost=bill(items, RATE, discount_rate=Decimal("0.2"))))

    assert recompute_record(row, BOOK, Decimal(0)).differs is False
    # 1000 x 1.25 / 10^6 more, 20 % less, and 5 % of it.
    assert recompute_record(row, RAISED, Decimal(0)).difference == Decimal("0.00105")


def test_record_without_a_price_today_has_no_difference() -> None:
    result = recompute_record(row_of(rated_record("req_1", BOOK)), OTHER_MODEL, Decimal(0))

    assert (result.today, result.difference, result.differs) == (None, None, True)
    assert result.reasons == ("gpt-5.4 has no prices",)


def test_quantity_that_had_no_price_is_rated_at_today_s() -> None:
    item = LineItem("input_tokens", Decimal(1000), "", None, None, "gpt-5.4", terms=(("service_tier", "flex"),))
    stored = make_record(make_intent("req_1"), cost=bill([item], RATE), basis=Basis.UNSETTLED)

    result = recompute_record(row_of(stored), BOOK, Decimal(0))

    # 1000 x 0.625 / 10^6 and 5 %.
    assert result.today == Decimal("0.00065625")
    assert result.reasons == ("input_tokens of gpt-5.4: no price, today 0.625 per million tokens",)


def test_stored_usage_that_was_never_rated_is_rated_with_the_given_surcharge() -> None:
    stored = make_record(
        make_intent("req_1"), cost=NOTHING, basis=Basis.UNSETTLED, usage=USAGE, faults=("rating failed",)
    )

    result = recompute_record(row_of(stored), BOOK, RATE)

    # 0.00125 + 0.001, and 5 %.
    assert result.today == Decimal("0.0023625")
    assert result.reasons == ("it was not rated; rated now from the provider's usage",)


def test_record_without_usage_has_its_fault_as_the_reason() -> None:
    stored = make_record(make_intent("req_1"), cost=NOTHING, basis=Basis.UNSETTLED, usage=None, faults=("no response",))

    result = recompute_record(row_of(stored), BOOK, RATE)

    assert (result.today, result.reasons) == (None, ("its usage is not known (no response)",))


@pytest.mark.parametrize("basis", [Basis.FREE, Basis.PENDING])
def test_free_and_pending_records_do_not_differ(basis: Basis) -> None:
    assert not recompute_record(
        row_of(make_record(make_intent("req_1"), cost=NOTHING, basis=basis)), RAISED, RATE
    ).differs


def test_totals_count_an_unrated_record_with_its_billed_amount() -> None:
    totals = Totals()
    rows = [
        row_of(rated_record("req_1", BOOK)),
        row_of(rated_record("req_2", BOOK, tier="flex")),
        row_of(make_record(make_intent("req_3"), cost=NOTHING, basis=Basis.PENDING)),
    ]

    results = list(recompute_records(rows, RAISED, RATE, totals))
    list(recompute_records(rows[:1], OTHER_MODEL, RATE, totals))

    assert [result.difference for result in results] == [Decimal("0.0013125"), 0, 0]
    assert (totals.records, totals.differing, totals.unrated, totals.pending) == (4, 1, 1, 1)
    assert totals.billed == 2 * Decimal("0.0023625") + Decimal("0.00118125")
    assert totals.today - totals.billed == totals.by_project["project-a"] == Decimal("0.0013125")


def test_members_are_text_in_the_order_of_the_columns() -> None:
    members = recompute_record(row_of(rated_record("req_1", BOOK)), RAISED, RATE).members()

    assert tuple(members) == COLUMNS
    assert members == {
        "request_id": "req_1",
        "project_id": "project-a",
        "started_at": "2026-03-02T10:00:00.123Z",
        "provider": "openai",
        "model": "gpt-5.4-2026-03-05",
        "basis": "reported",
        "billed": "0.002362500000",
        "today": "0.003675000000",
        "difference": "0.001312500000",
        "why": "input_tokens of gpt-5.4: 1.25 per million tokens, today 2.5 per million tokens",
    }


def test_container_time_is_rated_again_by_its_seconds_and_not_by_the_minimum() -> None:
    book = bundled_tariff().prices
    four_gb = (("memory_limit", "4g"),)
    items = [
        # Two minutes that a later use added, at 0.006; less than the minimum of five.
        LineItem(
            "container_seconds", Decimal(120), "per_minute", Decimal("0.006"), Decimal("0.012"), "gpt-5.4", "h", four_gb
        ),
    ]
    stored = make_record(make_intent("req_1", started_at=datetime(2026, 11, 28, tzinfo=UTC)), cost=bill(items, RATE))

    result = recompute_record(row_of(stored), book, Decimal(0))

    # 0.012 and 5 % of it.
    assert (result.billed, result.today, result.reasons) == (Decimal("0.0126"), Decimal("0.0126"), ())


def test_free_container_time_stays_free() -> None:
    book = bundled_tariff().prices
    items = [
        LineItem("free_container_seconds", Decimal(300), "per_hour", Decimal(0), Decimal(0), "claude-sonnet-5", "h"),
        LineItem(
            "container_seconds",
            Decimal(300),
            "per_hour",
            Decimal("0.05"),
            Decimal("0.004166666667"),
            "claude-sonnet-5",
            "h",
        ),
    ]
    intent = make_intent("req_1", provider="anthropic", started_at=datetime(2026, 11, 28, tzinfo=UTC))
    stored = make_record(intent, cost=bill(items, Decimal(0)))

    result = recompute_record(row_of(stored), book, Decimal(0))

    assert (result.today, result.difference, result.reasons) == (Decimal("0.004166666667"), 0, ())


def test_explained_container_time_names_its_card() -> None:
    price = (
        bundled_tariff()
        .prices.price_containers(
            "openai",
            UsageReport(model="gpt-5.4", containers=(ContainerUse("cntr_1", Terms(memory_limit="4g"), ""),)),
            requested_model=None,
            at=datetime(2026, 11, 28, tzinfo=UTC),
            provider_region=None,
        )[0]
        .price
    )
    assert price is not None
    intent = make_intent("req_1", started_at=datetime(2026, 11, 28, tzinfo=UTC))
    stored = make_record(intent, cost=bill(price.itemise(Decimal(120), Decimal(0)), Decimal(0)))

    explanation = explain_record(row_of(stored), bundled_tariff().prices)

    (item,) = explanation.items
    assert (explanation.warnings, item.exact) == ((), True)
    assert item.entry is not None
    assert "5-minute minimum" in item.entry.card.source
