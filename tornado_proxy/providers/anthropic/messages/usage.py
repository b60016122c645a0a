"""Usage of messages as disjoint quantities.

Anthropic states three disjoint parts of the input (fresh, cache read, cache write), so nothing is subtracted:

    T  = cache_creation_input_tokens          the total is authoritative; its split may cover only a part of it
    1h = min(cache_creation.ephemeral_1h_input_tokens, T),   5m = T - 1h          (T absent: the split as it is)

Thinking tokens are inside the output and never added.  Web fetches cost nothing beside tokens and make no quantity.
The time of code execution containers is not in usage: it is free up to a monthly allowance of the whole organisation,
of which one answer says nothing, so it is not metered.

`iterations` (beta) list the model calls behind one answer.  The top level is the sum of those of the model that served:

    message            in the top level, unless another model's: a hop that declined, free if it made no output
    fallback_message   the serving model's last call, in the top level
    compaction         beside the top level, at the serving model
    advisor_message    beside the top level, at the advisor's own model

Source: Anthropic API reference, "Messages", usage; "Refusals and fallback"; "Advisor tool".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem

_BESIDE = frozenset({"compaction", "advisor_message"})
_SAMPLED = frozenset({"message", "fallback_message"})


def readings_of(
    usage: Mapping[str, Any], model: str | None, faults: list[str], *, fell_back: bool = False
) -> tuple[UsageItem, ...]:
    """Everything that one usage object says was used; what does not add up goes to `faults`.

    `model` is the one that served.  `fell_back`: it did so in place of another, so that calls of others are hops.
    Without a fallback, calls that name another model name the same one by an alias.
    """
    top = _reading(usage, usage, _word(usage, "speed"), model, faults)
    searches = _searches(usage, faults)
    if searches:
        top = replace(top, quantities=(*top.quantities, *searches))
    return (top, *_beside(usage, model, faults, fell_back=fell_back))


def served_by_fallback(usage: Mapping[str, Any]) -> str | None:
    """The model that served in place of the requested one, as the iterations tell it."""
    served = [_word(one, "model") for one in _iterations(usage) if one.get("type") == "fallback_message"]
    return served[-1] if served else None


def count_of(holder: Mapping[str, Any], name: str, faults: list[str]) -> int:
    """A count; absent and null are 0."""
    value = holder.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"usage.{name} is a {type(value).__name__} that is no count")
        return 0
    return value


def _reading(
    counts: Mapping[str, Any], terms: Mapping[str, Any], speed: str | None, model: str | None, faults: list[str]
) -> UsageItem:
    fresh, read = count_of(counts, "input_tokens", faults), count_of(counts, "cache_read_input_tokens", faults)
    short, long = _writes(counts, faults)
    parts = (
        (Meter.INPUT, fresh),
        (Meter.CACHED_INPUT, read),
        (Meter.CACHE_WRITE_5M, short),
        (Meter.CACHE_WRITE_1H, long),
        (Meter.OUTPUT, count_of(counts, "output_tokens", faults)),
    )
    return UsageItem(
        tuple(Quantity(meter, Decimal(amount)) for meter, amount in parts if amount),
        model=model,
        terms=Terms(_word(terms, "service_tier"), speed, _word(terms, "inference_geo")),
        context_tokens=fresh + read + short + long,
    )


def _writes(counts: Mapping[str, Any], faults: list[str]) -> tuple[int, int]:
    """Tokens written to the cache for five minutes, and for an hour."""
    split = counts.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    short = count_of(split, "ephemeral_5m_input_tokens", faults)
    long = count_of(split, "ephemeral_1h_input_tokens", faults)
    if counts.get("cache_creation_input_tokens") is None:
        return short, long
    total = count_of(counts, "cache_creation_input_tokens", faults)
    long = min(long, total)
    return total - long, long


def _searches(usage: Mapping[str, Any], faults: list[str]) -> tuple[Quantity, ...]:
    tools = usage.get("server_tool_use")
    number = count_of(tools, "web_search_requests", faults) if isinstance(tools, dict) else 0
    return (Quantity(Meter.WEB_SEARCHES, Decimal(number)),) if number else ()


def _beside(usage: Mapping[str, Any], model: str | None, faults: list[str], *, fell_back: bool) -> Iterator[UsageItem]:
    """The model calls that the top level leaves out, and that are charged."""
    for one in _iterations(usage):
        kind, named = one.get("type"), _word(one, "model")
        if kind in _BESIDE:
            # An advisor runs at its own model's standard speed; a compaction at the speed of the answer it is part of.
            speed = _word(usage, "speed") if named in (None, model) else None
            yield _reading(one, usage, speed, named or model, faults)
        elif kind not in _SAMPLED:
            faults.append(f"usage.iterations holds a call of unknown kind {str(kind)[:40]!r}")
        elif fell_back and named not in (None, model) and count_of(one, "output_tokens", faults):
            yield _reading(one, usage, _word(usage, "speed"), named, faults)


def _iterations(usage: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    listed = usage.get("iterations")
    yield from (one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict))


def _word(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None
