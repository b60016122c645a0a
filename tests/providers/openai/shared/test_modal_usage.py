from __future__ import annotations

import pytest

from tests.providers.openai.reports import REALTIME_USAGE
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.shared.modal_usage import ModalUsage, read_modal_usage


def amounts(usage: ModalUsage) -> dict[str, int]:
    return {quantity.meter.value: int(quantity.amount) for quantity in usage.quantities}


@pytest.mark.parametrize("spelling", ["token_details", "tokens_details"])
def test_modalities_and_their_cached_parts_are_disjoint(spelling: str) -> None:
    stated = {name.replace("token_details", spelling): value for name, value in REALTIME_USAGE.items()}

    usage = read_modal_usage(stated)

    assert amounts(usage) == {
        "input_tokens": 100,
        "input_audio_tokens": 280,
        "input_image_tokens": 70,
        "cached_input_tokens": 200,
        "cached_input_audio_tokens": 120,
        "cached_input_image_tokens": 30,
        "output_tokens": 50,
        "output_audio_tokens": 150,
    }
    assert (usage.context_tokens, usage.faults) == (800, ())


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        pytest.param(
            {
                "input_tokens": 1000,
                "input_tokens_details": {"text_tokens": 200, "image_tokens": 800},
                "cached_tokens": 900,
                "cached_tokens_details": {"cached_image_tokens": 750, "cached_text_tokens": 150},
            },
            {
                "input_tokens": 50,
                "input_image_tokens": 50,
                "cached_input_tokens": 150,
                "cached_input_image_tokens": 750,
            },
            id="on the top level, with prefixed names",
        ),
        pytest.param(
            {
                "input_tokens": 640,
                "input_token_details": {"text_tokens": 240, "audio_tokens": 400, "cached_tokens": None},
                "cached_tokens_details": {"cached_audio_tokens": 320, "text_tokens": 40},
            },
            {
                "input_tokens": 200,
                "input_audio_tokens": 80,
                "cached_input_tokens": 40,
                "cached_input_audio_tokens": 320,
            },
            id="on the top level, without a total, in both spellings",
        ),
    ],
)
def test_cached_counts_beside_the_details_are_read(stated: dict[str, object], expected: dict[str, int]) -> None:
    usage = read_modal_usage(stated)

    assert (amounts(usage), usage.faults) == (expected, ())


@pytest.mark.parametrize(
    ("default_output", "meter"),
    [(Meter.OUTPUT, "output_tokens"), (Meter.OUTPUT_AUDIO, "output_audio_tokens")],
)
def test_output_without_details_counts_at_the_default_meter(default_output: Meter, meter: str) -> None:
    usage = read_modal_usage({"input_tokens": 7, "output_tokens": 3}, default_output=default_output)

    assert amounts(usage) == {"input_tokens": 7, meter: 3}


@pytest.mark.parametrize(("seconds", "expected"), [(2.1, {"audio_seconds": 3}), (4, {"audio_seconds": 4}), (0, {})])
def test_a_duration_is_rounded_up_to_whole_seconds(seconds: float, expected: dict[str, int]) -> None:
    assert amounts(read_modal_usage({"type": "duration", "seconds": seconds})) == expected


@pytest.mark.parametrize("seconds", [-1, "4", True, None, [4], float("inf"), float("nan")])
def test_an_invalid_duration_is_a_fault(seconds: object) -> None:
    usage = read_modal_usage({"type": "duration", "seconds": seconds})

    assert usage == ModalUsage(faults=(f"usage.seconds is {str(seconds)!r}, not a length in seconds",))


@pytest.mark.parametrize(
    ("stated", "fault"),
    [
        pytest.param(
            {"input_tokens": 9, "input_token_details": {"text_tokens": 5, "audio_tokens": 5}},
            "usage states 9 input tokens, and parts of 10",
            id="more parts than input",
        ),
        pytest.param(
            {"input_tokens": 9, "input_token_details": {"cached_tokens": 10}},
            "usage says that 10 of 9 input text_tokens were cached",
            id="more cached than input",
        ),
        pytest.param(
            {"output_tokens": 9, "output_token_details": {"audio_tokens": 10}},
            "usage states 9 output tokens, and parts of 10",
            id="more parts than output",
        ),
        pytest.param({"input_tokens": -1}, "usage.input_tokens is '-1', not a count", id="negative"),
    ],
)
def test_counts_that_do_not_add_up_are_a_fault_and_never_negative(stated: dict[str, object], fault: str) -> None:
    usage = read_modal_usage(stated)

    assert fault in usage.faults
    assert all(quantity.amount > 0 for quantity in usage.quantities)
