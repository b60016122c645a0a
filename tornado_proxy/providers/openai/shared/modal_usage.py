"""Usage objects that count text, audio and images apart, as disjoint quantities.

OpenAI states wholes and subsets (realtime, images, speech and transcription alike, under two spellings):

    input_tokens  = text + audio + image                       each with its cached part inside
    cached_tokens = cached text + cached audio + cached image  a subset of the input
    output_tokens = text + audio | image

What is charged is: input = text - cached text, cached input = cached text, input audio = audio - cached audio, and so
on.  `total_tokens` is a check sum and never a quantity.  The other kind of usage is a duration in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.usage import Meter, Quantity

_MODES = ("text_tokens", "audio_tokens", "image_tokens")
_FRESH = (Meter.INPUT, Meter.INPUT_AUDIO, Meter.INPUT_IMAGE)
_CACHED = (Meter.CACHED_INPUT, Meter.CACHED_INPUT_AUDIO, Meter.CACHED_INPUT_IMAGE)
_MADE = (Meter.OUTPUT, Meter.OUTPUT_AUDIO, Meter.OUTPUT_IMAGE)


@dataclass(frozen=True, slots=True)
class ModalUsage:
    """Quantities above zero, the whole input in tokens, and what does not add up."""

    quantities: tuple[Quantity, ...] = ()
    context_tokens: int = 0
    faults: tuple[str, ...] = ()


def read_usage(usage: dict[str, object], *, unnamed_output: Meter = Meter.OUTPUT) -> ModalUsage:
    """Read one usage object, of type tokens or duration.

    `unnamed_output` is what output tokens are that the details do not name: image tokens of an image model without
    output details, audio tokens of speech.
    """
    if usage.get("type") == "duration":
        return _duration(usage)
    faults: list[str] = []
    total_in, total_out = _count(usage, "input_tokens", faults), _count(usage, "output_tokens", faults)
    details = _object(usage, "input_token_details") or _object(usage, "input_tokens_details")
    made = _object(usage, "output_token_details") or _object(usage, "output_tokens_details")
    quantities = [*_input(total_in, details, faults), *_output(total_out, made, unnamed_output, faults)]
    return ModalUsage(tuple(quantities), total_in, tuple(faults))


def _duration(usage: dict[str, object]) -> ModalUsage:
    seconds = usage.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal) or not 0 <= seconds < math.inf:
        return ModalUsage(faults=(f"usage.seconds is {str(seconds)[:40]!r}, not a length in seconds",))
    return ModalUsage((Quantity(Meter.AUDIO_SECONDS, Decimal(math.ceil(seconds))),) if seconds else ())


def _input(total: int, details: dict[str, object], faults: list[str]) -> list[Quantity]:
    whole = [_count(details, mode, faults) for mode in _MODES]
    whole[0] = _rest(total, whole, details, "input", faults)
    cached = _cached(details, faults)
    for mode, part, of in zip(_MODES, cached, whole, strict=True):
        if part > of:
            faults.append(f"usage says that {part} of {of} input {mode} were cached")
    fresh = [max(0, of - part) for part, of in zip(cached, whole, strict=True)]
    return [*_positive(_FRESH, fresh), *_positive(_CACHED, cached)]


def _cached(details: dict[str, object], faults: list[str]) -> list[int]:
    split = _object(details, "cached_tokens_details")
    parts = [_count(split, mode, faults) for mode in _MODES]
    parts[0] = _rest(_count(details, "cached_tokens", faults), parts, split, "cached", faults)
    return parts


def _output(total: int, details: dict[str, object], unnamed: Meter, faults: list[str]) -> list[Quantity]:
    made = [_count(details, mode, faults) for mode in _MODES]
    rest = total - sum(made)
    if rest < 0:
        faults.append(f"usage states {total} output tokens, and parts of {sum(made)}")
    elif rest:
        made[_MADE.index(unnamed)] += rest
    return _positive(_MADE, made)


def _rest(total: int, parts: list[int], details: dict[str, object], name: str, faults: list[str]) -> int:
    """Text is what is neither audio nor image, so that no token is lost whatever the details leave out."""
    text = total - parts[1] - parts[2]
    if text < 0 or (details.get("text_tokens") is not None and text != parts[0]):
        faults.append(f"usage states {total} {name} tokens, and parts of {sum(parts)}")
    return max(0, text)


def _positive(meters: tuple[Meter, ...], amounts: list[int]) -> list[Quantity]:
    return [Quantity(meter, Decimal(amount)) for meter, amount in zip(meters, amounts, strict=True) if amount]


def _count(holder: dict[str, object], key: str, faults: list[str]) -> int:
    """A count; absent and null are 0."""
    value = holder.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"usage.{key} is {str(value)[:40]!r}, not a count")
        return 0
    return value


def _object(holder: dict[str, object], key: str) -> dict[str, object]:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}
