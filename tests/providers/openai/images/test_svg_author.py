from __future__ import annotations

import pytest

from tornado_proxy.providers.openai.images.svg_author import read_author_usage


def test_the_tokens_of_an_author_are_charged_at_its_model() -> None:
    usage = {"model": "gpt-5.4", "input_tokens": 300_000, "output_tokens": 7, "reasoning_tokens": 5}

    item, faults = read_author_usage({"svg_usage": usage})

    assert item is not None
    assert {quantity.meter.value: int(quantity.amount) for quantity in item.quantities} == {
        "input_tokens": 300_000,
        "output_tokens": 7,
    }
    assert (item.model, item.context_tokens, faults) == ("gpt-5.4", 300_000, ())


@pytest.mark.parametrize("stated", [None, {}, 5, []])
def test_missing_usage_is_no_item(stated: object) -> None:
    assert read_author_usage({"svg_usage": stated}) == (None, ())


def test_usage_without_a_model_is_a_fault() -> None:
    _, faults = read_author_usage({"svg_usage": {"input_tokens": 1}})

    assert faults == ("svg_usage names no model",)
