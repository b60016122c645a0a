"""Coverage of the served endpoints by prices, on a small price file."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from tests.reports.rated_records import PRICES, price_book, price_document
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.reports.coverage import (
    find_coverage_faults,
    find_ending_prices,
    find_stale_cards,
    find_uneven_prices,
    provider_of,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FLEX = 'prices: {input_tokens: "0.625", output_tokens: "5"}'


def coverage_faults(text: str) -> list[Fault]:
    return find_coverage_faults([price_document(text)], price_book(text), NOW)


def test_complete_prices_have_no_fault() -> None:
    assert coverage_faults(PRICES) == []
    assert find_uneven_prices([price_document()], price_book(), NOW) == []
    assert provider_of(price_document()) == "openai"


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        pytest.param(
            FLEX,
            'prices: {input_tokens: "0.625"}',
            "/v1/chat/completions (service_tier flex) is refused: gpt-5.4 has no price for output_tokens",
            id="a tier without a price",
        ),
        pytest.param(
            "when: {service_tier: standard}",
            "when: {service_tier: standard, input_tokens: {up_to: 1000}}",
            "input_tokens has no price on service_tier standard for 1001 input tokens",
            id="an input length without a price",
        ),
    ],
)
def test_gap_in_the_prices_is_a_fault_of_the_model(old: str, new: str, rule: str) -> None:
    assert PRICES.count(old) == 1
    faults = coverage_faults(PRICES.replace(old, new))

    assert any(rule in fault.rule for fault in faults), faults
    assert {fault.key for fault in faults} == {'models."gpt-5.4"'}


def test_retired_model_needs_no_prices() -> None:
    assert coverage_faults(PRICES.replace("status: active", "status: retired").replace(FLEX, "prices: {}")) == []


@pytest.mark.parametrize(("shutdown_date", "missed"), [("2026-03-01", True), ("2026-03-02", False)])
def test_model_is_to_be_retired_from_its_shutdown_on(shutdown_date: str, missed: bool) -> None:
    text = PRICES.replace("status: active", f"status: active\n    shutdown_date: {shutdown_date}", 1)

    rules = [fault.rule for fault in coverage_faults(text)]

    assert rules == [f"is active, but was shut down on {shutdown_date}; set its status to retired"] * missed
    assert coverage_faults(text.replace("status: active", "status: retired", 1)) == []


@pytest.mark.parametrize("end", ["2026-04-01", "2026-02-01"])
def test_price_that_ends_or_has_ended_without_a_successor_is_reported(end: str) -> None:
    text = PRICES.replace(FLEX, f"effective_until: {end}\n        {FLEX}")

    (fault,) = find_ending_prices([price_document(text)], price_book(text), NOW)

    assert fault.rule == f"no price on service_tier flex from {end} on for input_tokens, output_tokens"
    assert coverage_faults(text) == []


def test_price_that_has_ended_with_a_successor_is_not_reported() -> None:
    first = f"effective_until: 2026-02-01\n        {FLEX}"
    later = f"effective_from: 2026-02-01\n        {FLEX}"
    card = PRICES[PRICES.index("      - when: {service_tier: flex}") :].partition(FLEX)[0]
    source = PRICES.partition(FLEX)[2].partition("      - when")[0]
    text = PRICES.replace(f"{card}{FLEX}{source}", f"{card}{first}{source}{card}{later}{source}")
    assert text != PRICES

    assert find_ending_prices([price_document(text)], price_book(text), NOW) == []


def test_meter_without_a_price_on_one_tier_is_reported() -> None:
    text = PRICES.replace('output_tokens: "10"}', 'output_tokens: "10", cached_input_tokens: "0.1"}')

    (fault,) = find_uneven_prices([price_document(text)], price_book(text), NOW)

    assert fault.rule == (
        "no price on service_tier flex for cached_input_tokens, which the standard terms have a price for"
    )


def test_cache_lifetime_without_a_price_on_any_terms_is_reported() -> None:
    text = PRICES.replace('output_tokens: "10"}', 'output_tokens: "10", cache_write_tokens: "3"}')

    rules = [fault.rule for fault in find_uneven_prices([price_document(text)], price_book(text), NOW)]

    assert rules == [
        "no price on service_tier flex for cache_write_tokens, which the standard terms have a price for",
        "no price on the standard terms for cache_write_12h_tokens, which requests can ask for in place of "
        "cache_write_tokens",
    ]


def test_price_that_only_a_tier_has_is_reported_for_the_standard_terms() -> None:
    text = PRICES.replace(FLEX, 'prices: {input_tokens: "0.625", output_tokens: "5", input_audio_tokens: "9"}')

    (fault,) = find_uneven_prices([price_document(text)], price_book(text), NOW)

    assert fault.rule == "no price on the standard terms for input_audio_tokens, which other terms have a price for"


def test_speed_and_tier_that_are_priced_together_are_compared_together() -> None:
    text = PRICES.replace("when: {service_tier: flex}", "when: {service_tier: flex, speed: [standard, fast]}").replace(
        'output_tokens: "10"}', 'output_tokens: "10", cached_input_tokens: "0.1"}'
    )

    rules = [fault.rule for fault in find_uneven_prices([price_document(text)], price_book(text), NOW)]

    assert (
        "no price on service_tier flex, speed fast for cached_input_tokens, which the standard terms have a price for"
        in rules
    )


def test_card_not_checked_for_longer_than_the_limit_is_stale() -> None:
    documents = [price_document()]

    # The cards were checked on 2026-02-01 and 2026-02-02.
    assert find_stale_cards(documents, date(2026, 2, 11), 10) == []
    assert [fault.rule for fault in find_stale_cards(documents, date(2026, 2, 12), 10)] == [
        "was last checked on 2026-02-01"
    ]
