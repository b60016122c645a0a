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

Each entry is one prompt, and prices by length are chosen for each prompt.  Without entries the top level is the sum of
the prompts of a server tool loop, an upper bound of the length of each.

Source: Anthropic API reference, "Messages", usage; "Refusals and fallback"; "Advisor tool".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text, read_count

#: Iterations whose tokens the top level does not contain.
_EXTRA = frozenset({"compaction", "advisor_message"})

#: Iterations whose tokens the top level contains if they name the serving model.
_SAMPLED = frozenset({"message", "fallback_message"})


@dataclass(frozen=True, slots=True)
class RunSpeeds:
    """The speeds at which a request asks its models to run: usage states only that of the model that served.

    `own` is the speed of the requested model, `fallbacks` those of its fallback models by name.
    """

    requested_model: str | None = None
    own: str | None = None
    fallbacks: Mapping[str, str | None] = field(default_factory=dict)

    def of(self, model: str | None, stated: str | None) -> str | None:
        """Return the speed of a run of `model`; `stated` is the speed of the response."""
        if self.requested_model is None:
            return stated
        if model is None or model == self.requested_model:
            return self.own
        # Another name is the requested model's own: a dated name of the alias that the request used.
        return self.fallbacks.get(model, self.own)


#: The speeds of a request that is not known: that of the response.
STATED_SPEED = RunSpeeds()


def read_items(
    usage: Mapping[str, object],
    model: str | None,
    faults: list[str],
    *,
    fell_back: bool = False,
    looped: bool = False,
    speeds: RunSpeeds = STATED_SPEED,
) -> tuple[UsageItem, ...]:
    """Return the usage items of one usage object; statements that do not add up are added to `faults`.

    Args:
        usage: The `usage` member of a message.
        model: The model that served the request.
        faults: Sentences about statements that are not counts or not known.
        fell_back: True if `model` served in place of the requested model, so that runs of other models are hops.
            Without a fallback, another name in `iterations` is an alias of the same model.
        looped: True if tools of the provider ran, which makes several prompts of one request.
        speeds: The speed of each model that declined.
    """
    top_level = _make_item(usage, usage, as_text(usage.get("speed")), model, faults)
    runs = _find_serving_runs(usage, model, fell_back=fell_back)
    prompts = _read_prompts(usage, runs, top_level)
    top_level = replace(top_level, prompts=prompts, summed=not prompts and (len(runs) > 1 or (looped and not runs)))
    searches = _read_searches(usage, faults)
    if searches:
        top_level = _add_quantities(top_level, searches)
    return (top_level, *_read_extra_items(usage, model, faults, fell_back=fell_back, speeds=speeds))


def _find_serving_runs(usage: Mapping[str, object], model: str | None, *, fell_back: bool) -> list[dict[str, object]]:
    """Return the entries of `iterations` that the top level is the sum of."""
    return [
        run
        for run in as_objects(usage.get("iterations"))
        if run.get("type") in _SAMPLED and (not fell_back or as_text(run.get("model")) in (None, model))
    ]


def _read_prompts(
    usage: Mapping[str, object], runs: Sequence[Mapping[str, object]], top_level: UsageItem
) -> tuple[UsageItem, ...]:
    """Return the usage of each run; none if there is one run, or if the runs do not add up to the top level."""
    speed = as_text(usage.get("speed"))
    prompts = tuple(_make_item(run, usage, speed, top_level.model, []) for run in runs)
    if len(prompts) < 2 or _add_up(prompts) != _add_up([top_level]):
        return ()
    return prompts


def _add_up(items: Sequence[UsageItem]) -> Counter[Meter]:
    sums: Counter[Meter] = Counter()
    for quantity in (quantity for item in items for quantity in item.quantities):
        sums[quantity.meter] += int(quantity.amount)
    return sums


def _add_quantities(item: UsageItem, quantities: tuple[Quantity, ...]) -> UsageItem:
    """Return `item` with more quantities, which are added to its first prompt too."""
    prompts = tuple(
        replace(prompt, quantities=(*prompt.quantities, *quantities)) if number == 0 else prompt
        for number, prompt in enumerate(item.prompts)
    )
    return replace(item, quantities=(*item.quantities, *quantities), prompts=prompts)


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
    usage: Mapping[str, object], model: str | None, faults: list[str], *, fell_back: bool, speeds: RunSpeeds
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
            # usage.speed is that of the model that served.
            yield _make_item(run, usage, speeds.of(own_model, as_text(usage.get("speed"))), own_model, faults)
