"""Parsing of LiteLLM's price map: an excerpt in its own format."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import ROOT
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.lists.import_litellm import read_litellm
from tornado_proxy.pricing.lists.price_list import ListedModel, ListedPrice, NotAPriceList

FILE = ROOT / "tests" / "fixtures" / "price_lists" / "litellm.json"
ENDPOINTS = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions"})

CONTENT = json.loads(FILE.read_text(), parse_float=Decimal)
READ = read_litellm(CONTENT, ENDPOINTS)


def model(name: str) -> ListedModel:
    (found,) = [listed for listed in READ.models if listed.name == name]
    return found


def prices(name: str) -> set[ListedPrice]:
    return set(model(name).prices)


def tokens(meter: Meter, price: str, tier: str | None = None, over: int | None = None) -> ListedPrice:
    return ListedPrice(meter, "per_million_tokens", Decimal(price), Terms(service_tier=tier), over)


def test_costs_per_token_become_prices_per_million_with_tier_and_input_limit() -> None:
    assert prices("gpt-5.4") == {
        tokens(Meter.INPUT, "2.5"),
        tokens(Meter.INPUT, "1.25", "batch"),
        tokens(Meter.INPUT, "5", over=272_000),
        tokens(Meter.INPUT, "2.5", "flex", 272_000),
        tokens(Meter.OUTPUT, "15"),
        tokens(Meter.CACHED_INPUT, "0.25"),
        tokens(Meter.CACHED_INPUT, "0.13", "flex"),
    }


def test_cache_write_of_anthropic_has_the_five_minute_meter() -> None:
    assert prices("claude-haiku-4-5") == {
        tokens(Meter.INPUT, "1"),
        tokens(Meter.OUTPUT, "5"),
        tokens(Meter.CACHE_WRITE_5M, "1.25"),
        tokens(Meter.CACHE_WRITE_1H, "2"),
        tokens(Meter.CACHED_INPUT, "0.1"),
    }


def test_cost_per_second_becomes_price_per_minute_with_its_rounding() -> None:
    (whisper,) = prices("whisper-1")
    (rounded,) = prices("gpt-realtime-whisper")

    assert (whisper.meter, whisper.unit, whisper.price) == (Meter.AUDIO_SECONDS, "per_minute", Decimal("0.006"))
    assert abs(rounded.price - Decimal("0.017")) <= rounded.rounding < Decimal("1e-10")


def test_cost_per_second_of_a_model_priced_by_tokens_is_skipped() -> None:
    assert {price.meter for price in prices("gpt-4o-transcribe")} == {Meter.INPUT, Meter.INPUT_AUDIO, Meter.OUTPUT}


def test_cost_per_character_becomes_price_per_million() -> None:
    assert prices("tts-1") == {ListedPrice(Meter.INPUT_CHARACTERS, "per_million_characters", Decimal(15))}


def test_only_endpoints_known_to_the_registry_are_returned() -> None:
    assert model("gpt-5.4").endpoints == ("/v1/chat/completions", "/v1/responses")
    assert model("claude-haiku-4-5").endpoints == ("/v1/messages",)
    assert model("whisper-1").endpoints == ("/v1/audio/transcriptions",)
    assert model("whisper-1").shutdown_date == "2027-02-26"


def test_skipped_entries_are_counted_by_reason() -> None:
    assert [listed.name for listed in READ.models] == [
        *("gpt-5.4", "claude-haiku-4-5", "whisper-1", "gpt-realtime-whisper", "gpt-4o-transcribe", "tts-1")
    ]
    assert READ.skipped == {
        "search_context_cost_per_query: has no meter here": 1,
        "output_cost_per_second: has no meter here": 1,
        "prices per second of models that do not transcribe, or are priced by tokens": 1,
        "prices of zero: the list does not tell free from unknown": 1,
        "rows of one image size or of another host (names with /)": 1,
        "models without a price that is read here": 1,
    }


@pytest.mark.parametrize("content", [[], {}, None, "text", {"gpt": 1}, {"gpt": {"input_cost_per_token": 1}}])
def test_other_content_is_rejected(content: object) -> None:
    with pytest.raises(NotAPriceList):
        read_litellm(content, ENDPOINTS)


@pytest.mark.parametrize("cost", [True, "0.1", None, Decimal("1e999999"), Decimal(-1), Decimal("1e-400")])
def test_value_that_is_no_price_is_counted_and_skipped(cost: object) -> None:
    entry = {"litellm_provider": "openai", "input_cost_per_token": cost, "output_cost_per_token": Decimal("1e-06")}

    read = read_litellm({"m": entry}, ENDPOINTS)

    assert [listed.prices for listed in read.models] == [(tokens(Meter.OUTPUT, "1"),)]
    assert read.skipped == {"input_cost_per_token: is no price": 1}


SCALARS = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.text()
FIELDS = st.sampled_from(sorted({field for entry in CONTENT.values() for field in entry})) | st.text()


ENTRIES = st.dictionaries(FIELDS, SCALARS | st.lists(SCALARS)).map(
    lambda entry: {"litellm_provider": "openai", **entry}
)


@given(st.dictionaries(st.text(), ENTRIES | SCALARS))
@settings(deadline=None)
def test_any_content_of_entries_is_parsed_without_error(content: dict[str, object]) -> None:
    content["gpt-x"] = {**CONTENT["gpt-5.4"], **{str(number): entry for number, entry in enumerate(content.values())}}

    read = read_litellm(content, ENDPOINTS)

    assert all(price.price != 0 for listed in read.models for price in listed.prices)
