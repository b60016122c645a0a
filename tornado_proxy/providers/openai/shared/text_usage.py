"""Usage of chat completions, responses and embeddings as disjoint quantities.

Two spellings, one arithmetic: every `..._details` count is a subset of its whole.

    input  = prompt_tokens | input_tokens          output = completion_tokens | output_tokens
    charged: input - cached - cache write - audio,  cached - cached audio,  cache write,  audio - cached audio
             output - output audio,  output audio

Reasoning and prediction tokens are inside the output and never added; image tokens of a text model are ordinary input;
`total_tokens` is a check sum.  Source: OpenAI API reference, "usage" of the three objects; docs/usage.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.usage import Meter, Quantity

#: The two spellings of the wholes: chat and embeddings, responses.
_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class TextUsage:
    """Quantities above zero, the whole input in tokens, and what does not add up."""

    quantities: tuple[Quantity, ...]
    context_tokens: int
    faults: tuple[str, ...] = ()


def read_text_usage(usage: dict[str, object], *, cache_write: Meter = Meter.CACHE_WRITE) -> TextUsage:
    """Read one usage object.  `cache_write` is the meter of tokens that were written to the cache."""
    faults: list[str] = []
    if usage.get(_INPUT[0]) is None and usage.get(_INPUT[1]) is None:
        faults.append("usage does not state its input tokens")
    whole_in = _count(usage, _stated(usage, _INPUT), faults)
    whole_out = _count(usage, _stated(usage, _OUTPUT), faults)
    details_in = _object(usage, ("prompt_tokens_details", "input_tokens_details"))
    details_out = _object(usage, ("completion_tokens_details", "output_tokens_details"))
    cached = _count(details_in, "cached_tokens", faults)
    written = _count(details_in, "cache_write_tokens", faults)
    audio = _count(details_in, "audio_tokens", faults)
    cached_audio = _count(_object(details_in, ("cached_tokens_details",)), "audio_tokens", faults)
    made_audio = _count(details_out, "audio_tokens", faults)
    parts = (
        (Meter.INPUT, whole_in - cached - written - (audio - cached_audio)),
        (Meter.CACHED_INPUT, cached - cached_audio),
        (cache_write, written),
        (Meter.INPUT_AUDIO, audio - cached_audio),
        (Meter.CACHED_INPUT_AUDIO, cached_audio),
        (Meter.OUTPUT, whole_out - made_audio),
        (Meter.OUTPUT_AUDIO, made_audio),
    )
    faults += [f"usage states parts that are more than their whole: {meter} {n}" for meter, n in parts if n < 0]
    quantities = [Quantity(meter, Decimal(amount)) for meter, amount in parts if amount > 0]
    return TextUsage(tuple(quantities), whole_in, tuple(faults))


def _stated(holder: dict[str, object], names: tuple[str, ...]) -> str:
    """The first of `names` that is there and not null; the first one where none is."""
    for name in names:
        if holder.get(name) is not None:
            return name
    return names[0]


def _count(holder: dict[str, object], name: str, faults: list[str]) -> int:
    """A count; absent and null are 0."""
    value = holder.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"usage.{name} is {str(value)[:40]!r}, not a count")
        return 0
    return value


def _object(holder: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    value = holder.get(_stated(holder, names))
    return value if isinstance(value, dict) else {}
