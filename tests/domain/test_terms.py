"""Terms: merging, defaults and the text pairs of line items."""

from __future__ import annotations

import json

from tests.language import ROOT
from tornado_proxy.domain.terms import CARD_TERMS, DEFAULT_TERMS, NO_TERMS, Terms


def test_stated_terms_override_others() -> None:
    terms = Terms("flex", "fast").override(Terms(speed="standard", tool="web_search"))

    assert terms == Terms("flex", "standard", tool="web_search")
    assert terms.override(NO_TERMS) is terms


def test_pairs_are_sorted_by_name_and_omit_unstated_terms() -> None:
    assert Terms("flex", inference_geo="us").pairs() == (("inference_geo", "us"), ("service_tier", "flex"))
    assert NO_TERMS.pairs() == ()


def test_cache_lifetime_is_not_a_pair_because_it_selects_a_meter() -> None:
    assert Terms(cache_ttl="12h").pairs() == ()
    assert Terms.from_pairs([("cache_ttl", "12h")]) == NO_TERMS


def test_default_terms_are_omitted_from_line_items() -> None:
    assert DEFAULT_TERMS.non_default_pairs() == ()
    assert DEFAULT_TERMS.override(Terms("flex")).non_default_pairs() == (("service_tier", "flex"),)
    assert DEFAULT_TERMS.override(Terms(provider_region="eu")).non_default_pairs() == (("provider_region", "eu"),)


def test_terms_survive_conversion_to_pairs_and_back() -> None:
    terms = Terms("batch", "fast", "us", "eu", "web_search", "4g", "1024x1024", "hd", "active")

    assert Terms.from_pairs(terms.pairs()) == terms


def test_unknown_names_in_pairs_are_ignored() -> None:
    assert Terms.from_pairs([("service_tier", "flex"), ("weather", "fine")]) == Terms("flex")


def test_terms_have_the_names_of_the_conditions_in_the_price_schema() -> None:
    schema = json.loads((ROOT / "schemas/prices.schema.json").read_text())
    found: list[set[str]] = []
    collect_conditions(schema, found)

    assert found
    assert set().union(*found) == {*CARD_TERMS, "input_tokens"}
    assert set(Terms.__struct_fields__) == {*CARD_TERMS, "cache_ttl"}


def collect_conditions(node: object, found: list[set[str]]) -> None:
    if isinstance(node, list):
        for entry in node:
            collect_conditions(entry, found)
    if isinstance(node, dict):
        when = node.get("when")
        if isinstance(when, dict) and "properties" in when:
            found.append(set(when["properties"]))
        for entry in node.values():
            collect_conditions(entry, found)
