"""The attempts at one message: the model that served it or declined it last, and those that declined before.

With fallbacks several models can attempt one message.  Usage states the tokens of each attempt, `stop_details` and the
`fallback` blocks of the content the category of each refusal, and only the request the speed of each model.
Source: Anthropic API reference, "Refusals and fallback".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tornado_proxy.domain.request import NO_FACTS, RequestFacts
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.shared.json_values import as_object, as_objects, as_text

#: The category of a refusal that names none.
NO_CATEGORY = "none"

#: Content blocks of tools that run at the provider.
_PROVIDER_TOOLS = frozenset({"server_tool_use", "mcp_tool_use"})


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


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt at a message, and what came before it.

    Attributes:
        model: The model that served the request, or declined it last.
        fell_back: True if `model` served in place of the requested model, so that runs of other models are attempts
            that declined.  Without a fallback, another name in `iterations` is an alias of the same model.
        refusal: The category of the refusal if `model` declined without output, else None.
        declined: (model, category of its refusal) of each earlier attempt, in order.
        looped: True if tools of the provider ran, which makes several prompts of one request.
        speeds: The speed of each model that declined.
        cache_ttl: The longest cache lifetime that the request names, None if it names none.
    """

    model: str | None
    fell_back: bool = False
    refusal: str | None = None
    declined: Sequence[tuple[str | None, str]] = ()
    looped: bool = False
    speeds: RunSpeeds = STATED_SPEED
    cache_ttl: str | None = None

    def find_category(self, model: str | None, position: int) -> str:
        """Return the category with which the declined attempt of `model`, the one at `position` (from 0), ended."""
        for name, category in self.declined:
            if name == model:
                return category
        # The first block repeats the name that the request used, which can be an alias.
        return self.declined[position][1] if position < len(self.declined) else NO_CATEGORY


def read_attempt(message: Mapping[str, object], usage: Mapping[str, object], facts: RequestFacts = NO_FACTS) -> Attempt:
    """Return the last attempt at a message; `facts` are those of its request."""
    fallbacks = [block for block in as_objects(message.get("content")) if block.get("type") == "fallback"]
    served = find_fallback_model(usage) or _read_next_model(fallbacks)
    refused = message.get("stop_reason") == "refusal" and not _has_output(message)
    return Attempt(
        model=served or as_text(message.get("model")),
        fell_back=served is not None,
        refusal=_read_category(message.get("stop_details")) if refused else None,
        declined=[
            (as_text(as_object(block.get("from")).get("model")), _read_category(block.get("trigger")))
            for block in fallbacks
        ],
        looped=_ran_tools(message, usage),
        speeds=_read_speeds(facts),
        cache_ttl=facts.terms.cache_ttl,
    )


def find_fallback_model(usage: Mapping[str, object]) -> str | None:
    """Return the model that served in place of the requested one, as `iterations` states it, else None."""
    iterations = as_objects(usage.get("iterations"))
    served = [as_text(run.get("model")) for run in iterations if run.get("type") == "fallback_message"]
    return served[-1] if served else None


def _read_next_model(fallbacks: Sequence[Mapping[str, object]]) -> str | None:
    """Return the model that took over last."""
    return as_text(as_object(fallbacks[-1].get("to")).get("model")) if fallbacks else None


def _read_category(refusal: object) -> str:
    """Return the category of a refusal, from its `stop_details` or from the trigger of a fallback block."""
    return as_text(as_object(refusal).get("category")) or NO_CATEGORY


def _has_output(message: Mapping[str, object]) -> bool:
    """Return True if the content ends with output of the last attempt; blocks before a fallback are of earlier ones."""
    content = message.get("content")
    return isinstance(content, list) and bool(content) and as_object(content[-1]).get("type") != "fallback"


def _read_speeds(facts: RequestFacts) -> RunSpeeds:
    """Return the speeds that a request asks for, by model."""
    own, *others = facts.spends or (None,)
    if own is None:
        return STATED_SPEED
    models = {spend.model: spend.terms.speed for spend in others if spend is not None and Meter.OUTPUT in spend.meters}
    return RunSpeeds(own.model, own.terms.speed, models)


def _ran_tools(message: Mapping[str, object], usage: Mapping[str, object]) -> bool:
    """Return True if tools ran at the provider, each of which makes another prompt of the same request."""
    counts = as_object(usage.get("server_tool_use")).values()
    return any(isinstance(count, int) and count > 0 for count in counts) or any(
        as_text(block.get("type")) in _PROVIDER_TOOLS for block in as_objects(message.get("content"))
    )
