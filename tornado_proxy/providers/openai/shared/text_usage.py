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
from operator import itemgetter

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_values import Count, as_text, make_quantities, read_counts

# Names of their own: CPython 3.11 takes as long for an attribute of an enumeration as for a call.
_INPUT, _CACHED_INPUT, _OUTPUT = Meter.INPUT, Meter.CACHED_INPUT, Meter.OUTPUT
_INPUT_AUDIO, _CACHED_INPUT_AUDIO, _OUTPUT_AUDIO = Meter.INPUT_AUDIO, Meter.CACHED_INPUT_AUDIO, Meter.OUTPUT_AUDIO
_CACHE_WRITE, _REPORTED = Meter.CACHE_WRITE, Basis.REPORTED

#: The lifetime of a cache write that has a price of its own; `prompt_cache_options.ttl` asks for it (OpenAI guide,
#: "Prompt caching").  A breakpoint inside the input can ask for another lifetime, which only usage states.
_TWELVE_HOURS = "12h"

#: The `service_tier` that leaves the tier to the provider.  It has no price (OpenAI API reference, `service_tier`).
_AUTO_TIER = "auto"


class TextUsage(msgspec.Struct, frozen=True):
    """Quantities above zero.  `context_tokens` is the whole input; `faults` describe counts that do not add up."""

    quantities: tuple[Quantity, ...]
    context_tokens: int
    faults: tuple[str, ...] = ()


def cache_write_meter(facts: RequestFacts) -> Meter:
    """Return the meter of cache writes whose lifetime only the request states."""
    return Meter.CACHE_WRITE_12H if facts.terms.cache_ttl == _TWELVE_HOURS else _CACHE_WRITE


class _CachedDetails(msgspec.Struct):
    audio_tokens: Count = None


class _CacheWrites(msgspec.Struct):
    ttl_30m_tokens: Count = None
    ttl_12h_tokens: Count = None


class _InputDetails(msgspec.Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None
    cached_tokens_details: _CachedDetails | None = None
    cache_write_tokens_details: _CacheWrites | None = None


class _OutputDetails(msgspec.Struct):
    audio_tokens: Count = None


class _Counts(msgspec.Struct):
    """A usage object in both spellings: of chat and embeddings, of responses."""

    prompt_tokens: Count = None
    input_tokens: Count = None
    completion_tokens: Count = None
    output_tokens: Count = None
    prompt_tokens_details: _InputDetails | None = None
    input_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


_get_count = itemgetter(1)

#: The details of usage that states none.
_NO_INPUT_DETAILS, _NO_OUTPUT_DETAILS, _NO_CACHED_DETAILS = _InputDetails(), _OutputDetails(), _CachedDetails()


def read_text_usage(usage: Mapping[str, object], *, cache_write: Meter = Meter.CACHE_WRITE) -> TextUsage:
    """Return the quantities of one usage object.

    `cache_write` is the meter of tokens written to the cache for which usage does not state a lifetime.
    """
    faults: list[str] = []
    counts = read_counts(usage, _Counts, faults)
    total_input = counts.input_tokens if counts.prompt_tokens is None else counts.prompt_tokens
    if total_input is None:
        faults.insert(0, "usage does not state its input tokens")
        total_input = 0
    total_output = (counts.output_tokens if counts.completion_tokens is None else counts.completion_tokens) or 0
    details = counts.prompt_tokens_details or counts.input_tokens_details or _NO_INPUT_DETAILS
    output_details = counts.completion_tokens_details or counts.output_tokens_details or _NO_OUTPUT_DETAILS
    cached, cache_written = details.cached_tokens or 0, details.cache_write_tokens or 0
    split = details.cache_write_tokens_details
    writes = _split_cache_writes(cache_written, split, cache_write) if split else ((cache_write, cache_written),)
    audio, cached_details = details.audio_tokens or 0, details.cached_tokens_details or _NO_CACHED_DETAILS
    cached_audio = cached_details.audio_tokens or 0
    output_audio = output_details.audio_tokens or 0
    # `cached` counts cached audio too, and `audio` counts it again: it is subtracted once from each.
    stated = (
        (_INPUT, total_input - cached - cache_written - (audio - cached_audio)),
        (_CACHED_INPUT, cached - cached_audio),
        *writes,
        (_INPUT_AUDIO, audio - cached_audio),
        (_CACHED_INPUT_AUDIO, cached_audio),
        (_OUTPUT, total_output - output_audio),
        (_OUTPUT_AUDIO, output_audio),
    )
    if min(map(_get_count, stated)) < 0:
        faults += [f"usage states parts that are more than their total: {meter} {n}" for meter, n in stated if n < 0]
    return TextUsage(make_quantities(stated), total_input, tuple(faults))


def _split_cache_writes(total: int, split: _CacheWrites, cache_write: Meter) -> tuple[tuple[Meter, int], ...]:
    """Return the cache writes by meter; `cache_write` is the meter of those without a stated lifetime."""
    amounts = {Meter.CACHE_WRITE: split.ttl_30m_tokens or 0, Meter.CACHE_WRITE_12H: split.ttl_12h_tokens or 0}
    amounts[cache_write] += total - sum(amounts.values())
    return tuple(amounts.items())


def report_text(facts: RequestFacts, response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response with `usage`, `model`, `service_tier` and `id`; None if it has no usage.

    Quantities that only the request states (`facts.inferred`) are added, and the basis is then INFERRED.  The id names
    no object: no path that is served has one of a chat completion.
    """
    stated = response.get("usage")
    if not isinstance(stated, dict) or not stated:
        return None
    usage = read_text_usage(stated, cache_write=cache_write_meter(facts))
    model = as_text(response.get("model"))
    item = UsageItem(
        (*usage.quantities, *facts.inferred),
        model=model,
        terms=Terms(as_text(response.get("service_tier"))),
        context_tokens=usage.context_tokens,
    )
    basis = Basis.INFERRED if facts.inferred else _REPORTED
    return UsageReport(
        items=(item,),
        basis=Basis.UNSETTLED if usage.faults else basis,
        raw=msgspec.json.encode(stated).decode(),
        model=model,
        object_id=as_text(response.get("id")),
        names_object=False,
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
    output_tokens = token_estimate.estimate_output(output_bytes, facts.work.output_tokens)
    counts = ((Meter.INPUT, input_tokens), (Meter.OUTPUT, output_tokens))
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
