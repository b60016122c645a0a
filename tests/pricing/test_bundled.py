"""The cost of the bundled prices in each of their dimensions; every figure is typed from the provider's price list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from tornado_proxy.config.bundled import conf_path
from tornado_proxy.config.files import read_documents
from tornado_proxy.domain.cost import BillRates, Cost
from tornado_proxy.domain.terms import DEFAULT_TERMS, Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.pricing.book.price import ModelPrice
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.reports.coverage import find_coverage_faults, find_uneven_prices

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EARLIER = datetime(2026, 6, 1, 23, 59, 59, tzinfo=UTC)
#: Claude Sonnet 4.5 had a context window of a million tokens until the end of this day.
LAST_LONG_CONTEXT = datetime(2026, 4, 29, 23, 59, 59, tzinfo=UTC)
MILLION = 1_000_000


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook.from_documents(read_documents(conf_path("prices")))


def case(name: str, model: str, meter: Meter, amount: int, subtotal: str, **terms: Any) -> Any:
    return pytest.param(model, meter, amount, Decimal(subtotal), terms, id=name)


@pytest.mark.parametrize(
    ("model", "meter", "amount", "subtotal", "terms"),
    [
        case("a text model", "gpt-4o-mini", Meter.INPUT, MILLION, "0.15"),
        case("its snapshot", "gpt-4o-mini-2024-07-18", Meter.OUTPUT, MILLION, "0.60"),
        case("at the long limit", "gpt-5.4", Meter.INPUT, 272_000, "0.68"),
        case("one token over it", "gpt-5.4", Meter.INPUT, 272_001, "1.360005"),
        case("output after a short input", "gpt-5.4", Meter.OUTPUT, 1000, "0.015", context_tokens=272_000),
        case("output after a long input", "gpt-5.4", Meter.OUTPUT, 1000, "0.0225", context_tokens=272_001),
        case("cached input, long", "gpt-5.4", Meter.CACHED_INPUT, 1000, "0.0005", context_tokens=272_001),
        case("priority", "gpt-5.4", Meter.OUTPUT, 1000, "0.03", service_tier="priority"),
        case("flex", "gpt-5.4", Meter.INPUT, 1000, "0.00125", service_tier="flex"),
        case("default", "gpt-5.4", Meter.INPUT, 1000, "0.0025", service_tier="default"),
        case("Anthropic input", "claude-opus-5", Meter.INPUT, 1000, "0.005"),
        case("a cache read", "claude-opus-5", Meter.CACHED_INPUT, 1000, "0.0005"),
        case("a write for five minutes", "claude-opus-5", Meter.CACHE_WRITE_5M, 1000, "0.00625"),
        case("a write for an hour", "claude-opus-5", Meter.CACHE_WRITE_1H, 1000, "0.01"),
        case("fast", "claude-opus-5", Meter.OUTPUT, 1000, "0.05", speed="fast"),
        case("a batch", "claude-opus-5", Meter.CACHE_WRITE_5M, 1000, "0.003125", service_tier="batch"),
        case("inside the US", "claude-opus-5", Meter.OUTPUT, 1000, "0.0275", inference_geo="us"),
        case("anywhere", "claude-opus-5", Meter.OUTPUT, 1000, "0.025", inference_geo="global"),
        case("fast inside the US", "claude-opus-5", Meter.INPUT, 1000, "0.011", speed="fast", inference_geo="us"),
        case("a search costs the same in the US", "claude-opus-5", Meter.WEB_SEARCHES, 1, "0.01", inference_geo="us"),
        case(
            "a search costs the same in a batch", "claude-opus-5", Meter.WEB_SEARCHES, 1, "0.01", service_tier="batch"
        ),
        case("a file search", "gpt-5.4", Meter.FILE_SEARCHES, 3, "0.0075"),
        case("characters", "tts-1", Meter.INPUT_CHARACTERS, 1000, "0.015"),
        case("characters in high quality", "tts-1-hd", Meter.INPUT_CHARACTERS, 1000, "0.03"),
        case("a minute", "whisper-1", Meter.AUDIO_SECONDS, 60, "0.006"),
        case("a second, 0.0001", "whisper-1", Meter.AUDIO_SECONDS, 1, "0.0001"),
        case("a picture", "dall-e-3", Meter.IMAGES, 2, "0.08", own_terms={"size": "1024x1024", "quality": "standard"}),
        case("a wide one", "dall-e-3", Meter.IMAGES, 2, "0.16", own_terms={"size": "1792x1024", "quality": "standard"}),
        case("a fine one", "dall-e-3", Meter.IMAGES, 2, "0.16", own_terms={"size": "1024x1024", "quality": "hd"}),
        case("tokens of a picture", "gpt-image-2", Meter.OUTPUT_IMAGE, 272, "0.00816"),
        case("a container by the minute", "gpt-5.4", Meter.CONTAINER_SECONDS, 300, "0.0075"),
        case("a large one", "gpt-5.4", Meter.CONTAINER_SECONDS, 300, "0.48", own_terms={"memory_limit": "64g"}),
        case("an hour's write in a batch", "claude-mythos-5", Meter.CACHE_WRITE_1H, 1000, "0.01", service_tier="batch"),
        case("the same, 5.1", "claude-mythos-5-1", Meter.CACHE_WRITE_1H, 3000, "0.03", service_tier="batch"),
        case("an old batch", "claude-3-haiku-20240307", Meter.OUTPUT, MILLION, "0.625", service_tier="batch"),
        case("a write for 12 hours", "gpt-6-astra", Meter.CACHE_WRITE_12H, MILLION, "25"),
        case("on a fast tier", "gpt-6.1-terra", Meter.CACHE_WRITE_12H, 1000, "0.005", service_tier="fast"),
        case("on flex", "gpt-6.1-terra", Meter.CACHE_WRITE_12H, 1000, "0.00125", service_tier="flex"),
        case("ultrafast", "gpt-6.2-sol", Meter.CACHE_WRITE_12H, 1000, "0.015", service_tier="ultrafast"),
        case("after a long input", "gpt-5.6-luna", Meter.CACHE_WRITE_12H, 1000, "0.001", context_tokens=272_001),
        case("a legal question", "gpt-6-astra-law", Meter.OUTPUT, 1000, "0.05"),
        case("cached", "gpt-6-astra-law", Meter.CACHED_INPUT, 1000, "0.001"),
        case("pictures in a batch", "chatgpt-image-latest", Meter.OUTPUT_IMAGE, 1000, "0.016", service_tier="batch"),
        case("a retired model", "gpt-3.5-turbo-0613", Meter.INPUT, MILLION, "1.5"),
        case("one before it", "gpt-3.5-turbo-0301", Meter.OUTPUT, MILLION, "2"),
        case("cached input of a tuned model", "ft:gpt-4o-2024-11-20:x::1", Meter.CACHED_INPUT, 1000, "0.001875"),
        case("no long context any more", "claude-sonnet-4-5", Meter.INPUT, 404_500, "1.2135"),
        case("on its last day", "claude-sonnet-4-5", Meter.INPUT, 404_500, "2.427", at=LAST_LONG_CONTEXT),
        case("its batches", "claude-sonnet-4-5-20250929", Meter.INPUT, 300_000, "0.45", service_tier="batch"),
        case("of a container, at least five minutes", "gpt-5.4", Meter.CONTAINER_SECONDS, 1, "0.0075"),
        case("then by the second", "gpt-5.4", Meter.CONTAINER_SECONDS, 301, "0.007525"),
        case("a session of 20 minutes, before", "gpt-5.4", Meter.CONTAINER_SECONDS, 1, "0.03", at=EARLIER),
        case(
            "a large session, before",
            "gpt-5.4",
            Meter.CONTAINER_SECONDS,
            300,
            "1.92",
            at=EARLIER,
            own_terms={"memory_limit": "64g"},
        ),
    ],
)
def test_quantity_costs_the_amount_of_the_provider_s_price_list(
    book: PriceBook, model: str, meter: Meter, amount: int, subtotal: Decimal, terms: dict[str, Any]
) -> None:
    terms = dict(terms)
    at, own_terms = terms.pop("at", NOW), Terms(**terms.pop("own_terms", {}))
    if meter is Meter.WEB_SEARCHES:
        own_terms = Terms(tool="web_search")
    context_tokens = terms.pop("context_tokens", amount if meter is Meter.INPUT else 0)
    usage_item = UsageItem((Quantity(meter, Decimal(amount), own_terms),), model, Terms(**terms), context_tokens)
    provider = "anthropic" if model.startswith("claude") else "openai"

    cost = Tariff(book, provider, Decimal("0.05")).charge(UsageReport((usage_item,), Basis.REPORTED), model, at).cost

    assert cost.faults == ()
    assert cost.subtotal == subtotal
    assert cost.surcharge == (subtotal * Decimal("0.05")).quantize(Decimal("1e-12"))


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-6-astra", "25"),
        ("gpt-6-sol", "5"),
        ("gpt-6-luna", "0.25"),
        ("gpt-5.6-sol", "10"),
        ("gpt-5.6-terra", "5"),
        ("gpt-5.6-luna", "0.5"),
        ("gpt-5.6-cyber", "31.25"),
        ("gpt-6.1-sol", "5"),
        ("gpt-6-rosalind", "37.5"),
        ("gpt-6-cyber", "50"),
    ],
)
def test_cache_write_for_12_hours_has_the_published_price(book: PriceBook, model: str, price: str) -> None:
    entry = book.resolve("openai", model)

    assert entry is not None
    (card,) = entry.find(Meter.CACHE_WRITE_12H, DEFAULT_TERMS, 0, NOW)
    assert card.prices[Meter.CACHE_WRITE_12H] == Decimal(price)


def test_cached_prices_are_those_of_the_length_and_the_date(book: PriceBook) -> None:
    """A book that has rated every other length and date first gives the same costs as a new one."""
    day, second = timedelta(days=1), timedelta(seconds=1)

    def rate_all(model: ModelPrice, *, cached: bool) -> list[Cost]:
        costs = []
        lengths = sorted({0, *(limit + step for limit in model.limits for step in (-1, 0, 1))})
        times = sorted({NOW, *(date + step for date in model.dates for step in (-second, second * 0, day))})
        for meter, tokens, at in product(model.by_meter, lengths, times):
            if not cached:
                model.quotes.clear()
            item = UsageItem((Quantity(meter, Decimal(1000)),), model=model.name, context_tokens=tokens)
            report = UsageReport((item,), basis=Basis.REPORTED)
            costs.append(
                book.rate(
                    model.provider,
                    report,
                    requested_model=None,
                    at=at,
                    provider_region=None,
                    rates=BillRates(),
                )
            )
        return costs

    models = [model for name in ("openai", "anthropic") for model in book.models(name) if model.limits or model.dates]
    expected = [rate_all(model, cached=False) for model in models]
    for _ in range(2):
        assert [rate_all(model, cached=True) for model in models] == expected
    assert len(models) > 20


# Fixed days: a test of the prices must not fail on the day on which a provider shuts a model down.
@pytest.mark.parametrize("at", [NOW, datetime(2026, 11, 30, tzinfo=UTC)])
def test_prices_cover_the_served_endpoints(at: datetime) -> None:
    documents = read_documents(conf_path("prices"))

    assert find_coverage_faults(documents, PriceBook.from_documents(documents), at) == []


def test_no_terms_that_a_request_can_combine_lack_a_price() -> None:
    documents = read_documents(conf_path("prices"))

    faults = find_uneven_prices(documents, PriceBook.from_documents(documents), NOW)

    # OpenAI's batches are not served, so no request here meets these cards.
    assert {fault.rule for fault in faults} == {
        "no price on service_tier batch for cached_input_tokens, which the standard terms have a price for"
    }
