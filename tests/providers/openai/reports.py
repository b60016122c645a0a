"""Views of usage reports that tests compare."""

from __future__ import annotations

from decimal import Decimal

from tornado_proxy.domain.usage import UsageReport

#: Realtime usage in the shape of OpenAI's API reference, `response.done`.
REALTIME_USAGE: dict[str, object] = {
    "total_tokens": 1000,
    "input_tokens": 800,
    "output_tokens": 200,
    "input_token_details": {
        "text_tokens": 300,
        "audio_tokens": 400,
        "image_tokens": 100,
        "cached_tokens": 350,
        "cached_tokens_details": {"text_tokens": 200, "audio_tokens": 120, "image_tokens": 30},
    },
    "output_token_details": {"text_tokens": 50, "audio_tokens": 150},
}


def amounts(report: UsageReport) -> dict[str, int]:
    """Return the amount of each meter in `report`."""
    return {quantity.meter.value: int(quantity.amount) for item in report.items for quantity in item.quantities}


def undated(lines: list[tuple[str, str, Decimal]]) -> list[tuple[str, str, Decimal]]:
    """Return `lines` with the names of models without their date.

    Expected lines name the priced model, but a response names its snapshot, such as gpt-4o-2024-08-06.
    """
    return sorted((model[:-11] if model[-6:-5] == model[-3:-2] == "-" else model, *rest) for model, *rest in lines)
