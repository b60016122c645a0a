"""How a card is chosen, what it comes to, and what of a price file can be wrong; on a small file of our own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.errors import ConfigError, ModelNotPriced
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.tariff import Tariff

FILE = """
provider: openai
service_tiers: {default: standard, standard: standard, fast: priority, priority: priority, batch: batch}
aliases: {large-2026-01-01: large}
shared_rates:
  tools:
    - {unit: per_thousand_calls, prices: {web_searches: "10"}, source: a page, checked: "2026-01-01"}
modifiers:
  at_home: {when: {inference_geo: us}, multiply: "1.1", units: [per_million_tokens], source: a, checked: "2026-01-01"}
models:
  large:
    status: active
    endpoints: [/v1/chat/completions]
    roles: [input_transcription]
    includes: [tools]
    modifiers: [at_home]
    rates:
      - {when: {service_tier: standard, input_tokens: {up_to: 1000}}, unit: per_million_tokens,
         prices: {input_tokens: "2", output_tokens: "8"}, source: a page, checked: "2026-01-01"}
      - {when: {service_tier: standard, input_tokens: {over: 1000}}, unit: per_million_tokens,
         prices: {input_tokens: "4", output_tokens: "12"}, source: a page, checked: "2026-01-01"}
      - {when: {service_tier: priority}, unit: per_million_tokens, prices: {input_tokens: "5"}, source: a page,
         checked: "2026-01-01"}
  dated:
    status: active
    endpoints: [/v1/chat/completions]
    rates:
      - {unit: per_minute, prices: {audio_seconds: "0.006"}, effective_until: "2026-07-01", source: a,
         checked: "2026-01-01"}
      - {unit: per_minute, prices: {audio_seconds: "0.003"}, effective_from: "2026-07-01", source: a,
         checked: "2026-01-01"}
  "ft:large":
    status: active
    endpoints: [/v1/chat/completions]
    rates:
      - {unit: per_million_tokens, prices: {input_tokens: "3", output_tokens: "9"}, source: a, checked: "2026-01-01"}
"""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHAT = "/v1/chat/completions"


def book(text: str = FILE, *more: str) -> PriceBook:
    return PriceBook.from_documents([Document(f"{n}.yaml", yaml.safe_load(one)) for n, one in enumerate((text, *more))])


BOOK = book()
TARIFF = Tariff(BOOK, "openai", Decimal("0.05"))


def tokens(
    meter: Meter = Meter.INPUT,
    amount: int = 100,
    *,
    model: str | None = None,
    context_tokens: int | None = None,
    **terms: str | None,
) -> UsageItem:
    quantities = (Quantity(meter, Decimal(amount)),)
    return UsageItem(quantities, model, Terms(**terms), amount if context_tokens is None else context_tokens)


def rate(*readings: UsageItem, model: str = "large", at: datetime = NOON) -> Cost:
    return TARIFF.rate(UsageReport(readings, Basis.REPORTED), RequestFacts(model=model), at)


@pytest.mark.parametrize(
    ("reading", "subtotal"),
    [
        pytest.param(tokens(amount=1000), "0.002", id="1000 tokens at 2"),
        pytest.param(tokens(amount=1001), "0.004004", id="1001 tokens, all of them at 4"),
        pytest.param(
            tokens(Meter.OUTPUT, 10, context_tokens=1001), "0.00012", id="the input chooses for the output too"
        ),
        pytest.param(tokens(service_tier="default"), "0.0002", id="default is the standard tier"),
        pytest.param(tokens(service_tier="fast"), "0.0005", id="fast is the priority tier"),
        pytest.param(tokens(inference_geo="us"), "0.00022", id="a modifier multiplies"),
        pytest.param(tokens(inference_geo="eu"), "0.0002", id="a modifier of other terms does not"),
        pytest.param(tokens(model="large-2026-01-01"), "0.0002", id="an alias"),
        pytest.param(tokens(model="never-heard-of"), "0.0002", id="the model that was asked for, if need be"),
        pytest.param(tokens(model="ft:large:org::1"), "0.0003", id="a fine-tuned model"),
        pytest.param(tokens(Meter.WEB_SEARCHES, 3, context_tokens=0), "0.03", id="three searches at 10 a thousand"),
        pytest.param(tokens(amount=0), "0", id="nothing"),
    ],
)
def test_a_reading_comes_to(reading: UsageItem, subtotal: str) -> None:
    cost = rate(reading)

    assert cost.subtotal == Decimal(subtotal)
    assert cost.faults == ()


@pytest.mark.parametrize(
    ("day", "subtotal"),
    [
        (datetime(2026, 6, 30, 23, 59, 59, 999999, UTC), "0.012"),
        (datetime(2026, 7, 1, tzinfo=UTC), "0.006"),
    ],
)
def test_a_price_changes_at_midnight_utc(day: datetime, subtotal: str) -> None:
    assert rate(tokens(Meter.AUDIO_SECONDS, 120), model="dated", at=day).subtotal == Decimal(subtotal)


@pytest.mark.parametrize(
    ("reading", "model", "says"),
    [
        pytest.param(tokens(Meter.OUTPUT, service_tier="fast"), "large", "has no price", id="no card on these terms"),
        pytest.param(tokens(service_tier="warp"), "large", "service_tier warp", id="a tier that nobody knows"),
        pytest.param(tokens(model="a"), "b", "a has no prices", id="neither model"),
        pytest.param(tokens(), "", "None has no prices", id="no model at all"),
    ],
)
def test_what_has_no_price_is_shown_without_an_amount(reading: UsageItem, model: str, says: str) -> None:
    cost = TARIFF.rate(UsageReport((reading,), Basis.REPORTED), RequestFacts(model=model or None), NOON)

    assert says in cost.faults[0]
    assert (cost.line_items[0].quantity, cost.line_items[0].amount, cost.total) == (100, None, 0)


def test_the_region_of_the_provider_s_host_is_a_term_of_every_line() -> None:
    cost = replace(TARIFF, provider_region="eu").rate(
        UsageReport((tokens(),), Basis.REPORTED), RequestFacts(model="large"), NOON
    )

    assert cost.line_items[0].terms == (("provider_region", "eu"),)


@pytest.mark.parametrize(
    ("spend", "says"),
    [
        pytest.param(Spend("larg", frozenset()), "'larg' has no price here; is it large?", id="a hint"),
        pytest.param(Spend("x" * 200, frozenset()), "x' has no price here. The operator", id="a long name, cut"),
        pytest.param(Spend("large", frozenset(), terms=Terms("warp")), "tier 'warp' has no price", id="tier"),
        pytest.param(Spend("large", frozenset({Meter.IMAGES})), "no price for images", id="meter"),
        pytest.param(
            Spend("large", frozenset({Meter.OUTPUT}), terms=Terms("fast")),
            "no price for output_tokens on service_tier priority",
            id="meter on a tier",
        ),
        pytest.param(Spend("large", frozenset(), role="image_generation_tool"), "no price as image", id="role"),
    ],
)
def test_what_would_have_no_price_is_refused_before_it_is_sent(spend: Spend, says: str) -> None:
    with pytest.raises(ModelNotPriced, match="price") as refused:
        TARIFF.admit(CHAT, spend, NOON)

    assert says in refused.value.message


def test_a_model_is_refused_where_it_is_not_served() -> None:
    with pytest.raises(ModelNotPriced, match="only on /v1/chat/completions"):
        TARIFF.admit("/v1/embeddings", Spend("large", frozenset()), NOON)


def test_what_has_its_price_is_let_through() -> None:
    priced = frozenset({Meter.INPUT, Meter.OUTPUT, Meter.WEB_SEARCHES})

    TARIFF.admit(CHAT, Spend("large", priced), NOON)
    TARIFF.admit(CHAT, Spend("large", priced, terms=Terms("auto")), NOON)
    TARIFF.admit("/v1/realtime", Spend("large", frozenset({Meter.INPUT}), role="input_transcription"), NOON)


def test_a_provider_without_a_file_has_no_models() -> None:
    assert list(BOOK.models("anthropic")) == []
    assert BOOK.resolve("anthropic", "large") is None


def changed(**changes: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(FILE), **changes})


def model(**changes: Any) -> dict[str, Any]:
    content = yaml.safe_load(FILE)
    return {"models": {**content["models"], "large": {**content["models"]["large"], **changes}}}


def card(**changes: Any) -> dict[str, Any]:
    plain = {"unit": "per_million_tokens", "prices": {"input_tokens": "1"}, "source": "a", "checked": "2026-01-01"}
    return model(rates=[{**plain, **changes}])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (model(includes=["tolls"]), "models.large.includes[0]: there are no shared_rates 'tolls'"),
        (model(modifiers=["away"]), "models.large.modifiers[0]: there is no modifier 'away'"),
        ({"aliases": {"small": "tiny"}}, "aliases.small: there is no model 'tiny'"),
        ({"aliases": {"large": "dated"}}, "aliases.large: is a model with prices of its own"),
        (card(when={"service_tier": "warp"}), "rates[0].when.service_tier: no entry of service_tiers leads to 'warp'"),
        (card(effective_from="2026-02-30"), "rates[0].effective_from: '2026-02-30' is not a day of the calendar"),
        (
            card(effective_from="2026-02-01", effective_until="2026-02-01"),
            "effective_until: 2026-02-01 is not after effective_from 2026-02-01",
        ),
        (card(when={"input_tokens": {"over": 5, "up_to": 5}}), "rates[0].when: up_to 5 is not more than over 5"),
        (
            model(rates=[*card()["models"]["large"]["rates"]] * 2),
            "two cards can price input_tokens for one request: the card without conditions and the card without",
        ),
        (
            model(rates=[{**card()["models"]["large"]["rates"][0], "when": {"inference_geo": ["us", "eu"]}}] * 2),
            "the card for inference_geo eu/us and",
        ),
    ],
)
def test_a_fault_that_no_schema_sees_is_told_with_its_place(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        book(changed(**changes))

    assert any(says in str(fault) for fault in refused.value.faults)


def test_two_files_for_a_provider_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="a second file for openai"):
        book(FILE, FILE)


AMOUNTS = st.integers(0, 10**9)


@given(AMOUNTS, AMOUNTS)
def test_more_tokens_never_cost_less(first: int, second: int) -> None:
    few, many = sorted((first, second))

    assert rate(tokens(amount=few)).total <= rate(tokens(amount=many)).total


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_readings_cost_what_they_cost_apart(amounts: list[int]) -> None:
    readings = [tokens(amount=amount) for amount in amounts]

    assert rate(*readings).subtotal == sum((rate(reading).subtotal for reading in readings), Decimal(0))


@given(AMOUNTS, st.sampled_from(["default", "fast", "batch", None]), st.sampled_from(["us", None]))
def test_no_cost_is_negative_and_items_add_up(amount: int, tier: str | None, geo: str | None) -> None:
    cost = rate(tokens(amount=amount, service_tier=tier, inference_geo=geo))

    assert cost.total == sum(item.amount for item in cost.line_items if item.amount is not None)
    assert cost.total >= 0
