"""The choice of a price card, the cost, and the faults of a price file; on a small file written for these tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import ConfigError, ModelNotPriced
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff

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


def rate(*usage_items: UsageItem, model: str = "large", at: datetime = NOON) -> Cost:
    return TARIFF.charge(UsageReport(usage_items, Basis.REPORTED), model, at).cost


@pytest.mark.parametrize(
    ("usage_item", "subtotal"),
    [
        pytest.param(tokens(amount=1000), "0.002", id="1000 tokens at 2"),
        pytest.param(tokens(amount=1001), "0.004004", id="1001 tokens, all at 4"),
        pytest.param(
            tokens(Meter.OUTPUT, 10, context_tokens=1001),
            "0.00012",
            id="the input's length selects the output price too",
        ),
        pytest.param(tokens(service_tier="default"), "0.0002", id="default is the standard tier"),
        pytest.param(tokens(service_tier="fast"), "0.0005", id="fast is the priority tier"),
        pytest.param(tokens(inference_geo="us"), "0.00022", id="a modifier applies"),
        pytest.param(tokens(inference_geo="eu"), "0.0002", id="a modifier for other terms does not apply"),
        pytest.param(tokens(model="large-2026-01-01"), "0.0002", id="an alias"),
        pytest.param(tokens(model="never-heard-of"), "0.0002", id="an unknown model uses the requested one"),
        pytest.param(tokens(model="ft:large:org::1"), "0.0003", id="a fine-tuned model"),
        pytest.param(tokens(Meter.WEB_SEARCHES, 3, context_tokens=0), "0.03", id="three searches at 10 a thousand"),
        pytest.param(tokens(amount=0), "0", id="zero tokens"),
    ],
)
def test_usage_item_is_priced_with_the_matching_card(usage_item: UsageItem, subtotal: str) -> None:
    cost = rate(usage_item)

    assert cost.subtotal == Decimal(subtotal)
    assert cost.faults == ()


@pytest.mark.parametrize(
    ("day", "subtotal"),
    [
        (datetime(2026, 6, 30, 23, 59, 59, 999999, UTC), "0.012"),
        (datetime(2026, 7, 1, tzinfo=UTC), "0.006"),
    ],
)
def test_price_changes_at_midnight_utc(day: datetime, subtotal: str) -> None:
    assert rate(tokens(Meter.AUDIO_SECONDS, 120), model="dated", at=day).subtotal == Decimal(subtotal)


@pytest.mark.parametrize(
    ("usage_item", "model", "expected"),
    [
        pytest.param(tokens(Meter.OUTPUT, service_tier="fast"), "large", "has no price", id="no card on these terms"),
        pytest.param(tokens(service_tier="warp"), "large", "service_tier warp", id="an unknown tier"),
        pytest.param(tokens(model="a"), "b", "a has no prices", id="neither model"),
        pytest.param(tokens(), "", "None has no prices", id="no model at all"),
    ],
)
def test_unpriced_quantity_is_shown_without_an_amount(usage_item: UsageItem, model: str, expected: str) -> None:
    cost = TARIFF.charge(UsageReport((usage_item,), Basis.REPORTED), model or None, NOON).cost

    assert expected in cost.faults[0]
    assert (cost.line_items[0].quantity, cost.line_items[0].amount, cost.total) == (100, None, 0)


def test_provider_region_is_a_term_of_every_line_item() -> None:
    tariff = replace(TARIFF, provider_region="eu")

    cost = tariff.charge(UsageReport((tokens(),), Basis.REPORTED), "large", NOON).cost

    assert cost.line_items[0].terms == (("provider_region", "eu"),)


@pytest.mark.parametrize(
    ("spend", "expected"),
    [
        pytest.param(
            Spend("larg", frozenset()), "'larg' has no price; did you mean large? the operator can add one", id="a hint"
        ),
        pytest.param(
            Spend("larger-model", frozenset()), "'larger-model' has no price; the operator can add one", id="none near"
        ),
        pytest.param(Spend("x" * 200, frozenset()), "x' has no price; the operator", id="a long name is truncated"),
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
def test_spend_without_a_price_is_not_admitted(spend: Spend, expected: str) -> None:
    with pytest.raises(ModelNotPriced, match="price") as raised:
        TARIFF.admit(CHAT, spend, NOON)

    assert expected in raised.value.message


def test_model_is_not_admitted_on_an_endpoint_that_it_does_not_serve() -> None:
    with pytest.raises(ModelNotPriced, match="only on /v1/chat/completions"):
        TARIFF.admit("/v1/embeddings", Spend("large", frozenset()), NOON)


def test_spend_with_prices_is_admitted() -> None:
    meters = frozenset({Meter.INPUT, Meter.OUTPUT, Meter.WEB_SEARCHES})

    TARIFF.admit(CHAT, Spend("large", meters), NOON)
    TARIFF.admit(CHAT, Spend("large", meters, terms=Terms("auto")), NOON)
    TARIFF.admit("/v1/realtime", Spend("large", frozenset({Meter.INPUT}), role="input_transcription"), NOON)


def test_admission_ends_with_the_price_though_it_was_granted_before() -> None:
    content = yaml.safe_load(FILE)
    del content["models"]["dated"]["rates"][1]
    ended = PriceBook.from_documents([Document("openai.yaml", content)])
    spend = Spend("dated", frozenset({Meter.AUDIO_SECONDS}))
    last, first = datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)

    for _ in range(2):
        ended.admit("openai", CHAT, spend, last)
        with pytest.raises(ModelNotPriced):
            ended.admit("openai", CHAT, spend, first)


def test_provider_without_a_price_file_has_no_models() -> None:
    assert list(BOOK.models("anthropic")) == []
    assert BOOK.resolve("anthropic", "large") is None


def edited_file(**changes: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(FILE), **changes})


def model(**changes: Any) -> dict[str, Any]:
    content = yaml.safe_load(FILE)
    return {"models": {**content["models"], "large": {**content["models"]["large"], **changes}}}


def card(**changes: Any) -> dict[str, Any]:
    plain = {"unit": "per_million_tokens", "prices": {"input_tokens": "1"}, "source": "a", "checked": "2026-01-01"}
    return model(rates=[{**plain, **changes}])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (model(includes=["tolls"]), "models.large.includes[0]: unknown shared_rates 'tolls'"),
        (model(modifiers=["away"]), "models.large.modifiers[0]: unknown modifier 'away'"),
        ({"aliases": {"small": "tiny"}}, "aliases.small: unknown model 'tiny'"),
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
def test_fault_that_the_schema_cannot_express_names_its_position(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        book(edited_file(**changes))

    assert any(expected in str(fault) for fault in raised.value.faults)


def test_prices_of_a_document_are_built_once() -> None:
    document, other = (Document("openai.yaml", yaml.safe_load(FILE)) for _ in range(2))

    first, second, third = (PriceBook.from_documents([each]) for each in (document, document, other))

    assert second is not first
    assert second.resolve("openai", "large") is first.resolve("openai", "large")
    assert third.resolve("openai", "large") is not first.resolve("openai", "large")
    assert third.equals(first)
    assert third.fingerprint == second.fingerprint == first.fingerprint


def test_faults_of_a_document_are_reported_each_time() -> None:
    document = Document("openai.yaml", yaml.safe_load(FILE.replace("[at_home]", "[elsewhere]")))

    for _ in range(2):
        with pytest.raises(ConfigError, match="unknown modifier 'elsewhere'"):
            PriceBook.from_documents([document])


def test_second_price_file_for_a_provider_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="a second file for openai"):
        book(FILE, FILE)


AMOUNTS = st.integers(0, 10**9)


@given(AMOUNTS, AMOUNTS)
def test_more_tokens_never_cost_less(first: int, second: int) -> None:
    few, many = sorted((first, second))

    assert rate(tokens(amount=few)).total <= rate(tokens(amount=many)).total


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_cost_of_several_usage_items_is_the_sum_of_their_costs(amounts: list[int]) -> None:
    usage_items = [tokens(amount=amount) for amount in amounts]

    assert rate(*usage_items).subtotal == sum((rate(usage_item).subtotal for usage_item in usage_items), Decimal(0))


@given(AMOUNTS, st.sampled_from(["default", "fast", "batch", None]), st.sampled_from(["us", None]))
def test_cost_is_never_negative_and_equals_the_sum_of_its_line_items(
    amount: int, tier: str | None, geo: str | None
) -> None:
    cost = rate(tokens(amount=amount, service_tier=tier, inference_geo=geo))

    assert cost.total == sum(item.amount for item in cost.line_items if item.amount is not None)
    assert cost.total >= 0
