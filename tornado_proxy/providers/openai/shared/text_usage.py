"""Reads the usage of chat completions, responses and embeddings: disjoint quantities, stated or estimated.

Two spellings, one arithmetic: every count in `..._details` is a subset of its total.

    input  = prompt_tokens | input_tokens          output = completion_tokens | output_tokens
    charged: input - cached - cache write - audio,  cached - cached audio,  cache write,  audio - cached audio
             output - output audio,  output audio

Cache writes are split by lifetime if `cache_write_tokens_details` states the split; the rest has the lifetime that the
request asked for.  Reasoning and prediction tokens are part of the output and never added.  Image tokens of a text
model are ordinary input.  `total_tokens` is a checksum.

Source: OpenAI API reference, "usage" of the three objects; docs/usage.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_values import as_object, as_text, make_quantities, read_count

#: The two spellings of the totals: chat and embeddings, responses.
_INPUT_NAMES = ("prompt_tokens", "input_tokens")
_OUTPUT_NAMES = ("completion_tokens", "output_tokens")
#: Those of the objects with the parts of the totals.
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")

#: The lifetime of a cache write that has a price of its own; `prompt_cache_options.ttl` asks for it (OpenAI guide,
#: "Prompt caching").  A breakpoint inside the input can ask for another lifetime, which only usage states.
_TWELVE_HOURS = "12h"
_CACHE_WRITE_SPLIT = (("ttl_30m_tokens", Meter.CACHE_WRITE), ("ttl_12h_tokens", Meter.CACHE_WRITE_12H))

#: The `service_tier` that leaves the tier to the provider.  It has no price (OpenAI API reference, `service_tier`).
_AUTO_TIER = "auto"


class TextUsage(msgspec.Struct, frozen=True):
    """Quantities above zero.  `context_tokens` is the whole input; `faults` describe counts that do not add up."""

    quantities: tuple[Quantity, ...]
    context_tokens: int
    faults: tuple[str, ...] = ()


def cache_write_meter(facts: RequestFacts) -> Meter:
    """Return the meter of cache writes whose lifetime only the request states."""
    return Meter.CACHE_WRITE_12H if facts.terms.cache_ttl == _TWELVE_HOURS else Meter.CACHE_WRITE


def read_text_usage(usage: Mapping[str, object], *, cache_write: Meter = Meter.CACHE_WRITE) -> TextUsage:
    """Return the quantities of one usage object.

    `cache_write` is the meter of tokens written to the cache for which usage does not state a lifetime.
    """
    faults: list[str] = []
    if usage.get(_INPUT_NAMES[0]) is None and usage.get(_INPUT_NAMES[1]) is None:
        faults.append("usage does not state its input tokens")
    total_input = read_count(usage, _stated_name(usage, _INPUT_NAMES), faults)
    total_output = read_count(usage, _stated_name(usage, _OUTPUT_NAMES), faults)
    input_details = as_object(usage.get(_stated_name(usage, _INPUT_DETAILS)))
    output_details = as_object(usage.get(_stated_name(usage, _OUTPUT_DETAILS)))
    cached = read_count(input_details, "cached_tokens", faults)
    cache_written = read_count(input_details, "cache_write_tokens", faults)
    audio = read_count(input_details, "audio_tokens", faults)
    cached_audio = read_count(as_object(input_details.get("cached_tokens_details")), "audio_tokens", faults)
    output_audio = read_count(output_details, "audio_tokens", faults)
    # `cached` counts cached audio too, and `audio` counts it again: it is subtracted once from each.
    amounts = (
        (Meter.INPUT, total_input - cached - cache_written - (audio - cached_audio)),
        (Meter.CACHED_INPUT, cached - cached_audio),
        *_split_cache_writes(cache_written, input_details, cache_write, faults),
        (Meter.INPUT_AUDIO, audio - cached_audio),
        (Meter.CACHED_INPUT_AUDIO, cached_audio),
        (Meter.OUTPUT, total_output - output_audio),
        (Meter.OUTPUT_AUDIO, output_audio),
    )
    faults += [f"usage states parts that are more than their total: {meter} {n}" for meter, n in amounts if n < 0]
    return TextUsage(make_quantities(amounts), total_input, tuple(faults))


def _split_cache_writes(
    total: int, details: Mapping[str, object], cache_write: Meter, faults: list[str]
) -> list[tuple[Meter, int]]:
    """Return the cache writes by meter; `cache_write` is the meter of those without a stated lifetime."""
    split = as_object(details.get("cache_write_tokens_details"))
    if not split:
        return [(cache_write, total)]
    amounts = {meter: read_count(split, name, faults) for name, meter in _CACHE_WRITE_SPLIT}
    amounts[cache_write] += total - sum(amounts.values())
    return list(amounts.items())


def report_text(facts: RequestFacts, response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response with `usage`, `model`, `service_tier` and `id`; None if it has no usage.

    Quantities that only the request states (`facts.inferred`) are added, and the basis is then INFERRED.
    """
    stated = response.get("usage")
    if not isinstance(stated, dict) or not stated:
        return None
    usage = read_text_usage(stated, cache_write=cache_write_meter(facts))
    model = as_text(response.get("model"))
    item = UsageItem(
        (*usage.quantities, *facts.inferred),
        model=model,
        terms=Terms(service_tier=as_text(response.get("service_tier"))),
        context_tokens=usage.context_tokens,
    )
    basis = Basis.INFERRED if facts.inferred else Basis.REPORTED
    return UsageReport(
        items=(item,),
        basis=Basis.UNSETTLED if usage.faults else basis,
        raw=msgspec.json.encode(stated).decode(),
        model=model,
        object_id=as_text(response.get("id")),
        faults=usage.faults,
    )


def estimate_text(facts: RequestFacts, output_bytes: int, response: Mapping[str, object] | None = None) -> UsageReport:
    """Return an estimate for a response without usage: input by the request's length, output by the text's.

    `output_bytes` is the length of the response's text in UTF-8.  `response` holds the members `id`, `model` and
    `service_tier` as far as they are known.  providers/shared/token_estimate.py describes the accuracy.
    """
    known = response or {}
    tiers = (as_text(known.get("service_tier")), facts.terms.service_tier)
    input_tokens = token_estimate.estimate_tokens(facts.body_bytes)
    counts = ((Meter.INPUT, input_tokens), (Meter.OUTPUT, token_estimate.estimate_tokens(output_bytes)))
    item = UsageItem(
        (*make_quantities(counts), *facts.inferred),
        model=as_text(known.get("model")),
        terms=Terms(
            next((tier for tier in tiers if tier not in (None, _AUTO_TIER)), None),
            completion_window=facts.terms.completion_window,
        ),
        context_tokens=input_tokens,
    )
    return UsageReport(
        items=(item,),
        basis=Basis.ESTIMATED,
        model=item.model,
        object_id=as_text(known.get("id")),
        estimate_method=token_estimate.METHOD,
    )


def _stated_name(usage: Mapping[str, object], names: tuple[str, ...]) -> str:
    """Return the first of `names` whose value is not null; the first name if all are."""
    for name in names:
        if usage.get(name) is not None:
            return name
    return names[0]
