from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.shared.text_usage import read_text_usage


def amounts(usage: dict[str, object]) -> dict[str, int]:
    return {quantity.meter.value: int(quantity.amount) for quantity in read_text_usage(usage).quantities}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            {"input_tokens": 100, "output_tokens": 20},
            id="chat without details",
        ),
        pytest.param(
            {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": None},
            {"input_tokens": 100, "output_tokens": 20},
            id="responses, details null",
        ),
        pytest.param(
            {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 30}},
            {"input_tokens": 6, "cached_input_tokens": 64, "cache_write_tokens": 30},
            id="cached and cache-written tokens are parts of the input",
        ),
        pytest.param(
            {"prompt_tokens": 53, "completion_tokens": 9, "prompt_tokens_details": {"audio_tokens": 37}},
            {"input_tokens": 16, "input_audio_tokens": 37, "output_tokens": 9},
            id="input audio",
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "prompt_tokens_details": {
                    "audio_tokens": 50,
                    "cached_tokens": 40,
                    "cached_tokens_details": {"audio_tokens": 30},
                },
            },
            {
                "input_tokens": 40,
                "cached_input_tokens": 10,
                "input_audio_tokens": 20,
                "cached_input_audio_tokens": 30,
            },
            id="cached audio is part of audio and of cached",
        ),
        pytest.param(
            {
                "prompt_tokens": 1,
                "completion_tokens": 90,
                "completion_tokens_details": {
                    "audio_tokens": 60,
                    "reasoning_tokens": 10,
                    "accepted_prediction_tokens": 5,
                    "rejected_prediction_tokens": 5,
                },
            },
            {"input_tokens": 1, "output_tokens": 30, "output_audio_tokens": 60},
            id="reasoning and predictions are part of the output",
        ),
        pytest.param(
            {"prompt_tokens": 800, "prompt_tokens_details": {"image_tokens": 700, "text_tokens": 100}},
            {"input_tokens": 800},
            id="images of a text model are input",
        ),
    ],
)
def test_parts_are_subtracted_from_their_total(usage: dict[str, object], expected: dict[str, int]) -> None:
    assert amounts(usage) == expected
    assert read_text_usage(usage).faults == ()


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}, id="more cached than input"),
        pytest.param({"prompt_tokens": 5, "completion_tokens_details": {"audio_tokens": 1}}, id="audio without output"),
        pytest.param({"prompt_tokens": -5}, id="negative"),
        pytest.param({"prompt_tokens": 5.5}, id="fraction"),
        pytest.param({"prompt_tokens": "5"}, id="text"),
        pytest.param({"prompt_tokens": True}, id="true"),
        pytest.param({"completion_tokens": 5}, id="no input"),
        pytest.param({"total_tokens": 5}, id="a checksum alone"),
    ],
)
def test_counts_that_do_not_add_up_are_a_fault_and_never_negative(usage: dict[str, object]) -> None:
    text_usage = read_text_usage(usage)

    assert text_usage.faults
    assert all(quantity.amount > 0 for quantity in text_usage.quantities)


def test_the_context_is_the_whole_input() -> None:
    usage: dict[str, object] = {"input_tokens": 300_000, "input_tokens_details": {"cached_tokens": 299_000}}

    assert read_text_usage(usage).context_tokens == 300_000


def test_a_cache_write_counts_at_the_given_meter() -> None:
    usage: dict[str, object] = {"input_tokens": 9, "input_tokens_details": {"cache_write_tokens": 4}}

    text_usage = read_text_usage(usage, cache_write=Meter.CACHE_WRITE_12H)

    assert {quantity.meter for quantity in text_usage.quantities} == {Meter.INPUT, Meter.CACHE_WRITE_12H}


@pytest.mark.parametrize(
    ("written", "split", "expected"),
    [
        pytest.param(
            9000,
            {"ttl_12h_tokens": 1000, "ttl_30m_tokens": 8000},
            {"cache_write_12h_tokens": 1000, "cache_write_tokens": 8000},
            id="both lifetimes",
        ),
        pytest.param(700, {"ttl_30m_tokens": 700, "ttl_12h_tokens": 0}, {"cache_write_tokens": 700}, id="one"),
        pytest.param(
            700,
            {"ttl_30m_tokens": 200},
            {"cache_write_tokens": 200, "cache_write_12h_tokens": 500},
            id="a rest has the lifetime of the request",
        ),
        pytest.param(700, None, {"cache_write_12h_tokens": 700}, id="no split"),
    ],
)
def test_cache_writes_are_split_as_usage_states(written: int, split: object, expected: dict[str, int]) -> None:
    usage: dict[str, object] = {
        "input_tokens": 9000,
        "input_tokens_details": {"cache_write_tokens": written, "cache_write_tokens_details": split},
    }

    text_usage = read_text_usage(usage, cache_write=Meter.CACHE_WRITE_12H)

    stated = {quantity.meter.value: int(quantity.amount) for quantity in text_usage.quantities}
    assert stated == expected | ({"input_tokens": 9000 - written} if written < 9000 else {})
    assert text_usage.faults == ()


def test_a_split_above_the_cache_writes_is_a_fault() -> None:
    usage: dict[str, object] = {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"cache_write_tokens": 10, "cache_write_tokens_details": {"ttl_12h_tokens": 11}},
    }

    assert read_text_usage(usage).faults == (
        "usage states parts that are more than their total: cache_write_tokens -1",
    )


COUNTS = st.integers(0, 1000)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_parts_add_up_to_their_totals(fresh: int, cached: int, written: int, audio: int, output: int) -> None:
    usage: dict[str, object] = {
        "input_tokens": fresh + cached + written + audio,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio},
        "output_tokens": output,
    }

    text_usage = read_text_usage(usage)

    assert text_usage.faults == ()
    assert sum(quantity.amount for quantity in text_usage.quantities) == fresh + cached + written + audio + output
