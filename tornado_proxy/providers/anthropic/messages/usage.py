"""Usage of messages as disjoint quantities.

Anthropic states three disjoint parts of the input (fresh, cache read, cache write), so nothing is subtracted:

    T  = cache_creation_input_tokens          authoritative; its split by lifetime can cover only a part of it
    1h = min(cache_creation.ephemeral_1h_input_tokens, T),   5m = T - 1h          (without T: the split as stated)

Output tokens contain thinking tokens.  Web fetches cost tokens only.  Container time of code execution is not in
usage: a monthly allowance of the organisation is free, and a response does not state how much of it is used up, so the
time is not metered.

`iterations` (beta) lists the model runs behind one response.  The top level is the sum of the serving model's runs:

    message            in the top level if it names the serving model; else a hop that declined, free without output
    fallback_message   the last run of the serving model, in the top level
    compaction         not in the top level; charged at the serving model
    advisor_message    not in the top level; charged at the advisor's own model

Source: Anthropic API reference, "Messages", usage; "Refusals and fallback"; "Advisor tool".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text, read_count

#: Iterations whose tokens the top level does not contain.
_EXTRA = frozenset({"compaction", "advisor_message"})

#: Iterations whose tokens the top level contains if they name the serving model.
_SAMPLED = frozenset({"message", "fallback_message"})


def read_items(
    usage: Mapping[str, object], model: str | None, faults: list[str], *, fell_back: bool = False
) -> tuple[UsageItem, ...]:
    """Return the usage items of one usage object; statements that do not add up are added to `faults`.

    Args:
        usage: The `usage` member of a message.
        model: The model that served the request.
        faults: Sentences about statements that are not counts or not known.
        fell_back: True if `model` served in place of the requested model, so that runs of other models are hops.
            Without a fallback, another name in `iterations` is an alias of the same model.
    """
    top_level = _make_item(usage, usage, as_text(usage.get("speed")), model, faults)
    searches = _read_searches(usage, faults)
    if searches:
        top_level = replace(top_level, quantities=(*top_level.quantities, *searches))
    return (top_level, *_read_extra_items(usage, model, faults, fell_back=fell_back))


def find_fallback_model(usage: Mapping[str, object]) -> str | None:
    """Return the model that served in place of the requested one, as `iterations` states it, else None."""
    iterations = as_objects(usage.get("iterations"))
    served = [as_text(run.get("model")) for run in iterations if run.get("type") == "fallback_message"]
    return served[-1] if served else None


def _make_item(
    counts: Mapping[str, object], terms: Mapping[str, object], speed: str | None, model: str | None, faults: list[str]
) -> UsageItem:
    """Return the item of the token counts in `counts`; tier and region are those in `terms`."""
    fresh, read = read_count(counts, "input_tokens", faults), read_count(counts, "cache_read_input_tokens", faults)
    written_5m, written_1h = _read_cache_writes(counts, faults)
    amounts = (
        (Meter.INPUT, fresh),
        (Meter.CACHED_INPUT, read),
        (Meter.CACHE_WRITE_5M, written_5m),
        (Meter.CACHE_WRITE_1H, written_1h),
        (Meter.OUTPUT, read_count(counts, "output_tokens", faults)),
    )
    return UsageItem(
        tuple(Quantity(meter, Decimal(amount)) for meter, amount in amounts if amount),
        model=model,
        terms=Terms(as_text(terms.get("service_tier")), speed, as_text(terms.get("inference_geo"))),
        context_tokens=fresh + read + written_5m + written_1h,
    )


def _read_cache_writes(counts: Mapping[str, object], faults: list[str]) -> tuple[int, int]:
    """Return the tokens written to the cache for five minutes, and for an hour."""
    split = as_object(counts.get("cache_creation"))
    written_5m = read_count(split, "ephemeral_5m_input_tokens", faults)
    written_1h = read_count(split, "ephemeral_1h_input_tokens", faults)
    if counts.get("cache_creation_input_tokens") is None:
        return written_5m, written_1h
    # Recorded streams state a total that the split does not cover; five minutes is the default lifetime.
    total = read_count(counts, "cache_creation_input_tokens", faults)
    written_1h = min(written_1h, total)
    return total - written_1h, written_1h


def _read_searches(usage: Mapping[str, object], faults: list[str]) -> tuple[Quantity, ...]:
    number = read_count(as_object(usage.get("server_tool_use")), "web_search_requests", faults)
    return (Quantity(Meter.WEB_SEARCHES, Decimal(number)),) if number else ()


def _read_extra_items(
    usage: Mapping[str, object], model: str | None, faults: list[str], *, fell_back: bool
) -> Iterator[UsageItem]:
    """Yield the charged model runs that the top level does not contain."""
    for run in as_objects(usage.get("iterations")):
        kind, own_model = run.get("type"), as_text(run.get("model"))
        if kind in _EXTRA:
            # An advisor runs at its own model's standard speed, a compaction at the speed of its response.
            speed = as_text(usage.get("speed")) if own_model in (None, model) else None
            yield _make_item(run, usage, speed, own_model or model, faults)
        elif kind not in _SAMPLED:
            faults.append(f"usage.iterations contains the unknown type {str(kind)[:40]!r}")
        elif fell_back and own_model not in (None, model) and read_count(run, "output_tokens", faults):
            yield _make_item(run, usage, as_text(usage.get("speed")), own_model, faults)
