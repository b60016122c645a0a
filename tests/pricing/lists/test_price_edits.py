"""Edits of price files as text: everything that an edit does not change keeps its bytes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tornado_proxy.pricing.lists.price_edits import (
    Card,
    CardEdit,
    NewCard,
    NewModel,
    NotEditable,
    apply_edits,
    decimal_text,
)

TEXT = """\
# Head.
provider: openai
models:
  a-1:  # a comment
    status: active
    endpoints: [/v1/chat/completions]
    rates:
      # before the card
      - when: {service_tier: standard}
        unit: per_million_tokens
        prices: {input_tokens: "1.25", output_tokens: "10"}  # both
        source: "a page"
        checked: 2026-02-01
      - unit: per_thousand_calls
        prices:
          web_searches: "10"
        source: another
        checked: 2026-02-01

  b-2:
    status: active
    endpoints: [/v1/responses]
    rates:
      - unit: per_million_tokens
        prices: {input_tokens: "2"}
        source: x
        checked: 2026-02-01
# Foot.
"""


def edited(*lines: str) -> str:
    """Return TEXT with lines replaced: "old -> new"; an empty `new` removes the line."""
    text = TEXT
    for line in lines:
        old, _, new = line.partition(" -> ")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_new_price_changes_only_price_source_and_date() -> None:
    edit = CardEdit("a-1", 0, {"input_tokens": Decimal("2.50")}, 'a "list"', "2026-11-23")

    assert apply_edits(TEXT, [edit]) == edited(
        'input_tokens: "1.25" -> input_tokens: "2.5"',
        'source: "a page"\n        checked: 2026-02-01 -> source: "a \\"list\\""\n        checked: 2026-11-23',
    )


def test_date_is_kept_if_the_list_does_not_cover_the_whole_card() -> None:
    edit = CardEdit("a-1", 1, {"web_searches": Decimal(25)}, "list", None)

    assert apply_edits(TEXT, [edit]) == edited('"10"\n        source: another -> "25"\n        source: "list"')


def test_price_with_a_start_date_ends_the_card_and_begins_a_copy() -> None:
    edit = CardEdit("a-1", 0, {"output_tokens": Decimal(12)}, "list", "2026-11-23", "2026-12-01")

    assert apply_edits(TEXT, [edit]) == edited(
        """\
        unit: per_million_tokens
        prices: {input_tokens: "1.25", output_tokens: "10"}  # both
        source: "a page"
        checked: 2026-02-01
 -> \
        unit: per_million_tokens
        effective_until: 2026-12-01
        prices: {input_tokens: "1.25", output_tokens: "10"}  # both
        source: "a page"
        checked: 2026-02-01
      - when: {service_tier: standard}
        unit: per_million_tokens
        effective_from: 2026-12-01
        prices: {input_tokens: "1.25", output_tokens: "12"}  # both
        source: "list"
        checked: 2026-11-23
"""
    )


def test_dates_of_a_card_are_replaced() -> None:
    first = CardEdit("b-2", 0, {"input_tokens": Decimal(3)}, "list", "2026-11-23", "2026-12-01")
    second = CardEdit("b-2", 1, {"input_tokens": Decimal(4)}, "list", "2026-11-23", "2027-01-01")

    text = apply_edits(apply_edits(TEXT, [first]), [second])

    assert text.endswith(
        """\
      - unit: per_million_tokens
        effective_until: 2026-12-01
        prices: {input_tokens: "2"}
        source: x
        checked: 2026-02-01
      - unit: per_million_tokens
        effective_until: 2027-01-01
        effective_from: 2026-12-01
        prices: {input_tokens: "3"}
        source: "list"
        checked: 2026-11-23
      - unit: per_million_tokens
        effective_from: 2027-01-01
        prices: {input_tokens: "4"}
        source: "list"
        checked: 2026-11-23
# Foot.
"""
    )


def test_cards_are_appended_in_order() -> None:
    cards = [
        Card(
            {"service_tier": tier, "input_tokens": {"over": 272000}},
            "per_million_tokens",
            {"input_tokens": Decimal(price)},
            "list",
            "2026-11-23",
        )
        for tier, price in (("flex", "0.5"), ("batch", "0.25"))
    ]

    text = apply_edits(TEXT, [NewCard("a-1", card) for card in cards])

    assert text == edited(
        """\
        source: another
        checked: 2026-02-01
 -> \
        source: another
        checked: 2026-02-01
      - when: {service_tier: flex, input_tokens: {over: 272000}}
        unit: per_million_tokens
        prices: {input_tokens: "0.5"}
        source: "list"
        checked: 2026-11-23
      - when: {service_tier: batch, input_tokens: {over: 272000}}
        unit: per_million_tokens
        prices: {input_tokens: "0.25"}
        source: "list"
        checked: 2026-11-23
"""
    )


def test_model_is_appended() -> None:
    card = Card({}, "per_image", {"images": Decimal("0.04")}, "list", "2026-11-23", "2026-12-01")

    text = apply_edits(TEXT, [NewModel("c-3.5", ["/v1/images/edits"], [card], "2027-01-01")])

    assert text == edited(
        """\
# Foot.
 -> \
  c-3.5:
    status: deprecated
    shutdown_date: 2027-01-01
    endpoints: ["/v1/images/edits"]
    rates:
      - unit: per_image
        effective_from: 2026-12-01
        prices: {images: "0.04"}
        source: "list"
        checked: 2026-11-23
# Foot.
"""
    )


def test_name_that_yaml_would_not_read_as_text_is_quoted() -> None:
    card = Card({}, "per_image", {"images": Decimal(1)}, "s", "2026-11-23")

    for name in ("yes", "1e3", "a: b", "2026-01-01", "~"):
        assert f'\n  "{name}":\n' in apply_edits(TEXT, [NewModel(name, ["/v1/images/edits"], [card])])


def test_file_without_a_final_newline_gets_one() -> None:
    card = Card({}, "per_image", {"images": Decimal(1)}, "s", "2026-11-23")

    text = apply_edits(TEXT.removesuffix("\n# Foot.\n"), [NewCard("b-2", card)])

    assert "checked: 2026-02-01\n      - unit: per_image\n" in text


def test_card_written_in_one_line_is_refused() -> None:
    text = TEXT.replace(
        """\
      - unit: per_million_tokens
        prices: {input_tokens: "2"}
        source: x
        checked: 2026-02-01
""",
        """\
      - {unit: per_million_tokens, prices: {input_tokens: "2"}, source: x, checked: 2026-02-01}
""",
    )

    with pytest.raises(NotEditable, match="the rates of b-2 are written in one line"):
        apply_edits(text, [CardEdit("b-2", 0, {"input_tokens": Decimal(1)}, "list", None)])


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (Decimal("2.50"), "2.5"),
        (Decimal("1E+1"), "10"),
        (Decimal("100"), "100"),
        (Decimal("0.000000001"), "0.000000001"),
        (Decimal("0.01699999999998"), "0.017"),
    ],
)
def test_prices_are_plain_digits_with_at_most_nine_decimals(price: Decimal, text: str) -> None:
    assert decimal_text(price) == text
