"""Converts usage of chat completions, responses and embeddings into disjoint quantities.

Two spellings, one arithmetic: every count in `..._details` is a subset of its total.

    input  = prompt_tokens | input_tokens          output = completion_tokens | output_tokens
    charged: input - cached - cache write - audio,  cached - cached audio,  cache write,  audio - cached audio
             output - output audio,  output audio

Reasoning and prediction tokens are part of the output and never added.  Image tokens of a text model are ordinary
input.  `total_tokens` is a checksum.  Source: OpenAI API reference, "usage" of the three objects; docs/usage.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.providers.shared.json_values import as_object, read_count

#: The two spellings of the totals: chat and embeddings, responses.
_INPUT_NAMES = ("prompt_tokens", "input_tokens")
_OUTPUT_NAMES = ("completion_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class TextUsage:
    """Quantities above zero.  `context_tokens` is the whole input; `faults` describe counts that do not add up."""

    quantities: tuple[Quantity, ...]
    context_tokens: int
    faults: tuple[str, ...] = ()


def read_text_usage(usage: Mapping[str, object], *, cache_write: Meter = Meter.CACHE_WRITE) -> TextUsage:
    """Return the quantities of one usage object.  `cache_write` is the meter of tokens written to the cache."""
    faults: list[str] = []
    if usage.get(_INPUT_NAMES[0]) is None and usage.get(_INPUT_NAMES[1]) is None:
        faults.append("usage does not state its input tokens")
    total_input = read_count(usage, _stated_name(usage, _INPUT_NAMES), faults)
    total_output = read_count(usage, _stated_name(usage, _OUTPUT_NAMES), faults)
    input_details = _details(usage, _INPUT_NAMES)
    cached = read_count(input_details, "cached_tokens", faults)
    cache_written = read_count(input_details, "cache_write_tokens", faults)
    audio = read_count(input_details, "audio_tokens", faults)
    cached_audio = read_count(as_object(input_details.get("cached_tokens_details")), "audio_tokens", faults)
    output_audio = read_count(_details(usage, _OUTPUT_NAMES), "audio_tokens", faults)
    # `cached` counts cached audio too, and `audio` counts it again: it is subtracted once from each.
    amounts = (
        (Meter.INPUT, total_input - cached - cache_written - (audio - cached_audio)),
        (Meter.CACHED_INPUT, cached - cached_audio),
        (cache_write, cache_written),
        (Meter.INPUT_AUDIO, audio - cached_audio),
        (Meter.CACHED_INPUT_AUDIO, cached_audio),
        (Meter.OUTPUT, total_output - output_audio),
        (Meter.OUTPUT_AUDIO, output_audio),
    )
    faults += [f"usage states parts that are more than their total: {meter} {n}" for meter, n in amounts if n < 0]
    quantities = [Quantity(meter, Decimal(amount)) for meter, amount in amounts if amount > 0]
    return TextUsage(tuple(quantities), total_input, tuple(faults))


def _details(usage: Mapping[str, object], names: tuple[str, ...]) -> dict[str, object]:
    details_names = tuple(f"{name}_details" for name in names)
    return as_object(usage.get(_stated_name(usage, details_names)))


def _stated_name(usage: Mapping[str, object], names: tuple[str, ...]) -> str:
    """Return the first of `names` whose value is not null; the first name if all are."""
    return next((name for name in names if usage.get(name) is not None), names[0])
