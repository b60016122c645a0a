"""Usage of messages as disjoint quantities.

Anthropic states three disjoint parts of the input (fresh, cache read, cache write), so nothing is subtracted:

    T  = cache_creation_input_tokens          authoritative; its split by lifetime can cover only a part of it
    1h = the split of `cache_creation`, or of `iterations` if that covers more; the rest at the request's lifetime
    5m = T - 1h                               (without T: the split as stated)

Output tokens contain thinking tokens.  Web fetches cost tokens only.  Container time of code execution is not in usage
(code_execution.py).

`iterations` (beta) lists the model runs behind one response.  The top level is the sum of the serving model's runs:

    message            in the top level if it names the serving model; else an attempt that declined: an item of its own
    fallback_message   the last run of the serving model, in the top level
    compaction         not in the top level; charged at the serving model
    advisor_message    not in the top level; charged at the advisor's own model

An attempt that declined without output is an item with a `refusal`; the price book knows which of them are charged.
Each entry is one prompt, and prices by length are chosen for each prompt.  Without entries the top level is the sum of
the prompts of a server tool loop, an upper bound of the length of each.

Source: Anthropic API reference, "Messages", usage; "Refusals and fallback"; "Advisor tool".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.providers.anthropic.messages.attempt import Attempt
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text, make_quantities, read_count

#: Iterations whose tokens the top level does not contain.
_EXTRA = frozenset({"compaction", "advisor_message"})

#: Iterations whose tokens the top level contains if they name the serving model.
_SAMPLED = frozenset({"message", "fallback_message"})

#: The cache lifetime of a request that names none, and the other one (Anthropic guide, "Prompt caching").
_FIVE_MINUTES, _ONE_HOUR = "5m", "1h"


@dataclass(slots=True)
class Findings:
    """Sentences about a usage object: `faults` make its cost uncertain, `notes` name figures taken from the request."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_items(usage: Mapping[str, object], attempt: Attempt, findings: Findings) -> tuple[UsageItem, ...]:
    """Return the usage items of the `usage` member of a message; add what does not add up to `findings`."""
    reader = _ItemReader(usage, attempt, findings)
    top_level = reader.read_top_level()
    searches = _read_searches(usage, findings.faults)
    if searches:
        top_level = _add_quantities(top_level, searches)
    return (top_level, *reader.read_extra_items())


class _ItemReader:
    """Reads the items of one usage object."""

    def __init__(self, usage: Mapping[str, object], attempt: Attempt, findings: Findings) -> None:
        self._usage = usage
        self._attempt = attempt
        self._findings = findings

    def read_top_level(self) -> UsageItem:
        """Return the item of the last attempt."""
        usage, attempt = self._usage, self._attempt
        runs = self._list_own_runs()
        split = _read_split(usage, self._findings.faults)
        by_run = [_read_split(run, []) for run in runs]
        # A split in message_start covers the first prompt only; the runs of a tool loop write more.
        split = max(split, (sum(run[0] for run in by_run), sum(run[1] for run in by_run)), key=sum)
        item = self.read(usage, as_text(usage.get("speed")), attempt.model, split)
        prompts = self._read_prompts(runs, item)
        summed = not prompts and (len(runs) > 1 or (attempt.looped and not runs))
        return replace(item, prompts=prompts, summed=summed, refusal=attempt.refusal)

    def _read_prompts(self, runs: Sequence[Mapping[str, object]], top_level: UsageItem) -> tuple[UsageItem, ...]:
        """Return the usage of each run; none if there is one run, or if the runs do not add up to the top level."""
        # The runs' faults and notes are those of the top level, their sum.
        reader = _ItemReader(self._usage, self._attempt, Findings())
        prompts = tuple(reader.read_run(run, top_level.terms.speed, top_level.model) for run in runs)
        if len(prompts) < 2 or _add_up(prompts) != _add_up([top_level]):
            return ()
        return prompts

    def read(
        self, counts: Mapping[str, object], speed: str | None, model: str | None, split: tuple[int, int]
    ) -> UsageItem:
        """Return the item of the token counts in `counts`; tier and region are those of the usage object."""
        faults = self._findings.faults
        fresh, read = read_count(counts, "input_tokens", faults), read_count(counts, "cache_read_input_tokens", faults)
        written_5m, written_1h = self._split_cache_writes(counts, split)
        amounts = (
            (Meter.INPUT, fresh),
            (Meter.CACHED_INPUT, read),
            (Meter.CACHE_WRITE_5M, written_5m),
            (Meter.CACHE_WRITE_1H, written_1h),
            (Meter.OUTPUT, read_count(counts, "output_tokens", faults)),
        )
        terms = self._usage
        return UsageItem(
            make_quantities(amounts),
            model=model,
            terms=Terms(as_text(terms.get("service_tier")), speed, as_text(terms.get("inference_geo"))),
            context_tokens=fresh + read + written_5m + written_1h,
        )

    def read_run(self, run: Mapping[str, object], speed: str | None, model: str | None) -> UsageItem:
        """Return the item of one entry of `iterations`."""
        return self.read(run, speed, model, _read_split(run, self._findings.faults))

    def read_extra_items(self) -> Iterator[UsageItem]:
        """Yield the model runs that the top level does not contain."""
        usage, attempt = self._usage, self._attempt
        declined: list[str | None] = []
        for run in as_objects(usage.get("iterations")):
            kind, model = run.get("type"), as_text(run.get("model"))
            if as_text(kind) in _EXTRA:
                # An advisor runs at its own model's standard speed, a compaction at the speed of its response.
                speed = as_text(usage.get("speed")) if model in (None, attempt.model) else None
                yield self.read_run(run, speed, model or attempt.model)
            elif as_text(kind) not in _SAMPLED:
                self._findings.faults.append(f"usage.iterations contains the unknown type {str(kind)[:40]!r}")
            elif attempt.fell_back and model not in (None, attempt.model):
                if model not in declined:
                    declined.append(model)
                yield self._read_declined(run, model, declined.index(model))

    def _read_declined(self, run: Mapping[str, object], model: str | None, position: int) -> UsageItem:
        """Return the item of an attempt that declined, the one at `position`."""
        # usage.speed is that of the model that served.
        speed = self._attempt.speeds.of(model, as_text(self._usage.get("speed")))
        item = self.read_run(run, speed, model)
        # An attempt that produced output is charged, whatever it declined for.
        if read_count(run, "output_tokens", []):
            return item
        return replace(item, refusal=self._attempt.find_category(model, position))

    def _list_own_runs(self) -> list[dict[str, object]]:
        """Return the entries of `iterations` that the top level contains."""
        attempt = self._attempt
        return [
            run
            for run in as_objects(self._usage.get("iterations"))
            if as_text(run.get("type")) in _SAMPLED
            and (not attempt.fell_back or as_text(run.get("model")) in (None, attempt.model))
        ]

    def _split_cache_writes(self, counts: Mapping[str, object], split: tuple[int, int]) -> tuple[int, int]:
        """Return the tokens written to the cache for five minutes, and for an hour."""
        if counts.get("cache_creation_input_tokens") is None:
            return split
        total = read_count(counts, "cache_creation_input_tokens", self._findings.faults)
        written_5m, written_1h = min(split[0], total), min(split[1], total)
        # Streams state a total that grows after its split was stated; the request names the lifetimes it wants.
        unstated = max(total - written_5m - written_1h, 0)
        ttl = self._attempt.cache_ttl or _FIVE_MINUTES
        if unstated:
            self._findings.notes.append(
                f"the lifetime of {unstated} tokens written to the cache is not stated; the request's is {ttl}"
            )
        if ttl == _ONE_HOUR:
            written_1h += unstated
        return total - written_1h, written_1h


def _read_split(counts: Mapping[str, object], faults: list[str]) -> tuple[int, int]:
    """Return the tokens that `cache_creation` states for five minutes, and for an hour."""
    split = as_object(counts.get("cache_creation"))
    return (
        read_count(split, "ephemeral_5m_input_tokens", faults),
        read_count(split, "ephemeral_1h_input_tokens", faults),
    )


def _read_searches(usage: Mapping[str, object], faults: list[str]) -> tuple[Quantity, ...]:
    searches = read_count(as_object(usage.get("server_tool_use")), "web_search_requests", faults)
    return make_quantities([(Meter.WEB_SEARCHES, searches)])


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
