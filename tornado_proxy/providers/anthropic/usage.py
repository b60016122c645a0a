"""Usage of messages as disjoint quantities.

Anthropic states three disjoint parts of the input (fresh, cache read, cache write), so nothing is subtracted:

    T  = cache_creation_input_tokens          the total is authoritative; its split may cover only a part of it
    1h = min(cache_creation.ephemeral_1h_input_tokens, T),   5m = T - 1h

`iterations` (beta) list the model calls behind one answer.  The top level is the sum of the `message` iterations of the
model that served; compactions, advisors and fallbacks to other models stand only in the list and are priced beside it.
Source: Anthropic API reference, "Messages", usage; docs/usage.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.usage import Meter, Quantity, Reading

_SEARCHES = "web_search_requests"


def readings_of(usage: Mapping[str, Any], model: str | None, faults: list[str]) -> tuple[Reading, ...]:
    """Everything that one usage object says was used; what does not add up goes to `faults`."""
    top = _reading(usage, model, usage, _searches(usage, faults), faults)
    beside = _iterations(usage, model)
    return (top, *(_reading(one, _named(one) or model, usage, (), faults) for one in beside))


def _reading(
    counts: Mapping[str, Any],
    model: str | None,
    terms: Mapping[str, Any],
    more: tuple[Quantity, ...],
    faults: list[str],
) -> Reading:
    fresh, read = _count(counts, "input_tokens", faults), _count(counts, "cache_read_input_tokens", faults)
    short, long = _writes(counts, faults)
    parts = (
        (Meter.INPUT, fresh),
        (Meter.CACHED_INPUT, read),
        (Meter.CACHE_WRITE_5M, short),
        (Meter.CACHE_WRITE_1H, long),
        (Meter.OUTPUT, _count(counts, "output_tokens", faults)),
    )
    quantities = tuple(Quantity(meter, Decimal(amount)) for meter, amount in parts if amount)
    return Reading(
        (*quantities, *more),
        model=model,
        service_tier=_word(terms, "service_tier"),
        speed=_word(terms, "speed"),
        inference_geo=_word(terms, "inference_geo"),
        context_tokens=fresh + read + short + long,
    )


def _writes(counts: Mapping[str, Any], faults: list[str]) -> tuple[int, int]:
    """Tokens written to the cache for five minutes, and for an hour."""
    split = counts.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    short = _count(split, "ephemeral_5m_input_tokens", faults)
    long = _count(split, "ephemeral_1h_input_tokens", faults)
    if counts.get("cache_creation_input_tokens") is None:
        return short, long
    total = _count(counts, "cache_creation_input_tokens", faults)
    long = min(long, total)
    return total - long, long


def _searches(usage: Mapping[str, Any], faults: list[str]) -> tuple[Quantity, ...]:
    tools = usage.get("server_tool_use")
    number = _count(tools, _SEARCHES, faults) if isinstance(tools, dict) else 0
    return (Quantity(Meter.WEB_SEARCHES, Decimal(number)),) if number else ()


def _iterations(usage: Mapping[str, Any], model: str | None) -> Iterator[Mapping[str, Any]]:
    """The model calls that the top level leaves out, and that are charged."""
    listed = usage.get("iterations")
    for one in listed if isinstance(listed, list) else ():
        if not isinstance(one, dict):
            continue
        kind, named = one.get("type"), _named(one)
        if kind in ("compaction", "advisor_message"):
            yield one
        elif kind == "message" and named not in (None, model) and one.get("output_tokens"):
            yield one  # a hop that declined after it had begun to answer; one that declined before is free


def _named(one: Mapping[str, Any]) -> str | None:
    return _word(one, "model")


def _word(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None


def _count(holder: Mapping[str, Any], name: str, faults: list[str]) -> int:
    """A count; absent and null are 0."""
    value = holder.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"usage.{name} is {str(value)[:40]!r}, not a count")
        return 0
    return value
