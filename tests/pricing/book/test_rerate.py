"""Rating a stored record again at the same prices gives the same amounts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.harness import ROOT
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.cost import LineItem, merge_items
from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.ledger.columns import RecordRow
from tornado_proxy.ledger.rows import decode_row, encode_row, make_record_row, read_line_items
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.pricing.book.rerate import find_entry, rerate

BOOK = PriceBook.from_documents(read_documents(ROOT / "conf" / "prices"))
AT = datetime(2026, 11, 23, tzinfo=UTC)
RATE = Decimal("0.05")

MODELS = {provider: sorted(model.name for model in BOOK.models(provider)) for provider in ("openai", "anthropic")}

quantities = st.lists(
    st.builds(
        Quantity,
        st.sampled_from(Meter),
        st.integers(1, 10**7).map(Decimal) | st.decimals("0.001", "9999", places=3),
        st.sampled_from((NO_TERMS, Terms(tool="web_search"), Terms(memory_limit="4g"))),
    ),
    max_size=5,
    unique_by=lambda quantity: quantity.meter,
).map(tuple)


def usage_items(provider: str) -> st.SearchStrategy[UsageItem]:
    return st.builds(
        UsageItem,
        quantities,
        st.sampled_from(MODELS[provider]),
        st.builds(
            Terms,
            st.sampled_from((None, "default", "flex", "priority", "batch", "standard", "unheard-of")),
            st.sampled_from((None, "standard", "fast")),
            st.sampled_from((None, "us", "global", "not_available")),
        ),
        st.integers(0, 1_000_000),
    )


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@given(data=st.data(), region=st.sampled_from((None, "eu")))
@settings(deadline=None)
def test_record_rated_again_at_the_same_prices_keeps_every_digit(
    provider: str, data: st.DataObject, region: str | None
) -> None:
    report = UsageReport(tuple(data.draw(st.lists(usage_items(provider), max_size=3))), Basis.REPORTED)
    cost = merge_items(Tariff(BOOK, provider, RATE, region).charge(report, None, AT).cost)
    row = make_record_row(make_record(make_intent("r", provider=provider), cost=cost))
    items = read_line_items(decode_row(encode_row(row), RecordRow).line_items)

    again = rerate(BOOK, provider, items, AT, surcharge_rate=Decimal(0))

    assert items == cost.line_items
    assert again.total == cost.total
    assert [item.amount for item in again.line_items] == [item.amount for item in cost.line_items]
    assert bool(again.faults) is bool(cost.faults)
    for item in items:
        if item.price_hash is not None:
            entry = find_entry(BOOK, provider, item, AT).entry
            assert entry is not None
            assert entry.price_hash == item.price_hash


ITEM = LineItem("input_tokens", Decimal(10), "per_million_tokens", Decimal(1), Decimal("0.00001"), "gpt-5.4")


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (replace(ITEM, model=None), "a model without a name has no prices"),
        (replace(ITEM, model="gpt-none"), "gpt-none has no prices"),
        (replace(ITEM, type="unheard_of"), "unheard_of is no meter of this version"),
        (replace(ITEM, terms=(("service_tier", "gold"),)), "input_tokens of gpt-5.4 has no price on service_tier gold"),
        (replace(ITEM, type="input_audio_tokens"), "input_audio_tokens of gpt-5.4 has no price on the standard terms"),
    ],
)
def test_item_without_a_price_today_has_a_fault_that_says_why(item: LineItem, fault: str) -> None:
    cost = rerate(BOOK, "openai", [item], AT, surcharge_rate=RATE)

    assert cost.faults == (fault,)
    assert (cost.line_items[0].amount, cost.total) == (None, 0)


def test_surcharge_rate_of_the_record_takes_precedence() -> None:
    surcharge = LineItem("llm_proxy_surcharge", Decimal(1), "usd", Decimal("0.5"), Decimal("0.5"))

    with_surcharge = rerate(BOOK, "openai", [ITEM, surcharge], AT, surcharge_rate=RATE)
    without_surcharge = rerate(BOOK, "openai", [ITEM], AT, surcharge_rate=RATE)

    # 10 tokens of gpt-5.4 cost 0.000025 USD.
    assert (with_surcharge.subtotal, with_surcharge.surcharge) == (Decimal("0.000025"), Decimal("0.0000125"))
    assert (without_surcharge.subtotal, without_surcharge.surcharge) == (Decimal("0.000025"), Decimal("0.00000125"))
