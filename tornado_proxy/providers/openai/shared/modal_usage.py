"""Converts usage objects that count text, audio and images separately into disjoint quantities.

OpenAI states totals and subsets (realtime, images, speech and transcription alike, in two spellings):

    input_tokens  = text + audio + image                       each includes its cached part
    cached_tokens = cached text + cached audio + cached image  a subset of the input
    output_tokens = text + audio | image

Charged are: input = text - cached text, cached input = cached text, input audio = audio - cached audio, and so on.
Cached counts are inside `input_token_details`, with the names of the modalities.  The image tool states them beside
`input_tokens` instead, as `cached_text_tokens` and so on (SDK types, `ImageGenUsage`); both places are read.
`total_tokens` is a checksum and never a quantity.  Usage of type "duration" is a length in seconds instead.

Source: OpenAI API reference, "usage" of realtime `response.done`, images, and `transcript.text.done`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.providers.shared.json_values import MAX_COUNT, as_object, make_quantities, read_count

_MODALITIES = ("text_tokens", "audio_tokens", "image_tokens")
_INPUT_METERS = (Meter.INPUT, Meter.INPUT_AUDIO, Meter.INPUT_IMAGE)
_CACHED_METERS = (Meter.CACHED_INPUT, Meter.CACHED_INPUT_AUDIO, Meter.CACHED_INPUT_IMAGE)
_OUTPUT_METERS = (Meter.OUTPUT, Meter.OUTPUT_AUDIO, Meter.OUTPUT_IMAGE)


@dataclass(frozen=True, slots=True)
class ModalUsage:
    """Quantities above zero.  `context_tokens` is the whole input; `faults` describe counts that do not add up."""

    quantities: tuple[Quantity, ...] = ()
    context_tokens: int = 0
    faults: tuple[str, ...] = ()


def read_modal_usage(usage: dict[str, object], *, default_output: Meter = Meter.OUTPUT) -> ModalUsage:
    """Return the quantities of one usage object, of type tokens or duration.

    `default_output` is the meter of output tokens that no detail names: image tokens for an image model, which may
    state no output details, audio tokens for speech.
    """
    if usage.get("type") == "duration":
        return _read_duration(usage)
    faults: list[str] = []
    if usage.get("input_tokens") is None and usage.get("output_tokens") is None:
        faults.append("usage states neither input nor output tokens")
    total_input, total_output = read_count(usage, "input_tokens", faults), read_count(usage, "output_tokens", faults)
    # Realtime and transcription write `input_token_details`, images and speech `input_tokens_details`.
    input_details = as_object(usage.get("input_token_details")) or as_object(usage.get("input_tokens_details"))
    output_details = as_object(usage.get("output_token_details")) or as_object(usage.get("output_tokens_details"))
    counts = [
        *_read_input(total_input, input_details, _cached_statement(usage, input_details), faults),
        *_read_output(total_output, output_details, default_output, faults),
    ]
    return ModalUsage(make_quantities(counts), total_input, tuple(faults))


def _read_duration(usage: dict[str, object]) -> ModalUsage:
    seconds = usage.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal) or not 0 <= seconds <= MAX_COUNT:
        return ModalUsage(faults=(f"usage.seconds is {str(seconds)[:40]!r}, not a length in seconds",))
    # OpenAI charges whole seconds: realtime events state fractions of them, such as 2.1.
    return ModalUsage(make_quantities([(Meter.AUDIO_SECONDS, math.ceil(seconds))]))


def _cached_statement(usage: dict[str, object], input_details: dict[str, object]) -> dict[str, object]:
    """Return the object that states the cached counts: the input details, or the usage object itself."""
    names = ("cached_tokens", "cached_tokens_details")
    return input_details if any(input_details.get(name) is not None for name in names) else usage


def _read_input(
    total: int, details: dict[str, object], cached_statement: dict[str, object], faults: list[str]
) -> list[tuple[Meter, int]]:
    totals = [read_count(details, modality, faults) for modality in _MODALITIES]
    totals[0] = _text_tokens(total, totals, details, "input", faults)
    cached = _read_cached(cached_statement, faults)
    for modality, part, whole in zip(_MODALITIES, cached, totals, strict=True):
        if part > whole:
            faults.append(f"usage says that {part} of {whole} input {modality} were cached")
    uncached = [max(0, whole - part) for part, whole in zip(cached, totals, strict=True)]
    return [*zip(_INPUT_METERS, uncached, strict=True), *zip(_CACHED_METERS, cached, strict=True)]


def _read_cached(statement: dict[str, object], faults: list[str]) -> list[int]:
    stated_details = as_object(statement.get("cached_tokens_details"))
    cached_details = {name.removeprefix("cached_"): count for name, count in stated_details.items()}
    parts = [read_count(cached_details, modality, faults) for modality in _MODALITIES]
    # Without a total the parts are the whole: a missing total must not turn cached tokens into a fault.
    total = sum(parts) if statement.get("cached_tokens") is None else read_count(statement, "cached_tokens", faults)
    parts[0] = _text_tokens(total, parts, cached_details, "cached", faults)
    return parts


def _read_output(
    total: int, details: dict[str, object], default_output: Meter, faults: list[str]
) -> list[tuple[Meter, int]]:
    parts = [read_count(details, modality, faults) for modality in _MODALITIES]
    rest = total - sum(parts)
    if rest < 0:
        faults.append(f"usage states {total} output tokens, and parts of {sum(parts)}")
    elif rest:
        parts[_OUTPUT_METERS.index(default_output)] += rest
    return list(zip(_OUTPUT_METERS, parts, strict=True))


def _text_tokens(total: int, parts: list[int], details: dict[str, object], name: str, faults: list[str]) -> int:
    """Return the tokens of `total` that are neither audio nor image, so that missing details lose no token."""
    text = total - parts[1] - parts[2]
    if text < 0 or (details.get("text_tokens") is not None and text != parts[0]):
        faults.append(f"usage states {total} {name} tokens, and parts of {sum(parts)}")
    return max(0, text)
