"""The page of one request, as values."""

from __future__ import annotations

from decimal import Decimal

from msgspec import structs

from tests.reports.rated_records import price_book, rated_record, row_of
from tornado_proxy.dashboard.requests.explained_request import explain
from tornado_proxy.pricing.book.calculator import bill

BOOK = price_book()


def test_page_shows_list_prices_and_the_discount() -> None:
    stored = rated_record("req_1", BOOK)
    cost = bill(stored.cost.line_items[:2], Decimal("0.05"), discount_rate=Decimal("0.1"))

    shown = explain(row_of(structs.replace(stored, cost=cost)), BOOK)

    # 1000 x 1.25 / 10^6 + 100 x 10 / 10^6; 10 % of 0.00225, and 5 % of 0.002025.
    assert shown.sums == [
        ("List prices", "0.00225000"),
        ("Discount, 0.1 of the list", "-0.00022500"),
        ("Subtotal", "0.00202500"),
        ("Surcharge, 0.05 of the subtotal", "0.00010125"),
        ("Total USD", "0.00212625"),
    ]


def test_page_names_the_request_that_it_repeats() -> None:
    row = {**row_of(rated_record("req_2", BOOK)), "retry_of": "req_1", "retry_count": "1"}

    facts = dict(explain(row, BOOK).facts)

    assert (facts["Repeats"], facts["Retry of the client"]) == ("req_1", "1")
