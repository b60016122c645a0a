"""What the request for a message can spend: its own model, an advisor's, those it may fall back to, and searches.

`fallbacks: "default"` names no model: Anthropic chooses one by the kind of refusal, and the answer says which.  Such a
request is admitted, for clients send it unasked; the model that served is looked up when it is known, and one without
a price leaves the record unsettled.
Source: Anthropic API reference, "Create a message"; "Refusals and fallback"; "Advisor tool".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.shared.json_body import (
    flag_member,
    list_member,
    member_bytes,
    read_members,
    required_model,
    text_member,
)

MEMBERS = ("model", "stream", "service_tier", "speed", "inference_geo", "tools", "fallbacks", "container")

_TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})
_SEARCHES = frozenset({Meter.WEB_SEARCHES})
_SEARCH_TOOL = "web_search_"

_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])


def facts_of(body: bytes, members: Mapping[str, Any]) -> RequestFacts:
    """The facts of the request `body`, whose `MEMBERS` are `members`.

    Raises:
        InvalidBody: it names no model, or one in a way that two readers could read differently.
    """
    model = required_model(members)
    tier = text_member(members, "service_tier")
    terms = Terms(tier, text_member(members, "speed"), text_member(members, "inference_geo"))
    own = Spend(model, _TEXT, terms=terms)
    beside = (*_searches(members, own), *_advisors(members, body, own), *_hops(members, body, own))
    return RequestFacts(
        model=model,
        spends=tuple(dict.fromkeys((own, *beside))),
        stream=flag_member(members, "stream"),
        terms=Terms(service_tier=tier),
        body_bytes=len(body),
        references=_references(members),
    )


def _searches(members: Mapping[str, Any], own: Spend) -> Iterator[Spend]:
    kinds = (tool.get("type") for tool in list_member(members, "tools") if isinstance(tool, dict))
    if any(isinstance(kind, str) and kind.startswith(_SEARCH_TOOL) for kind in kinds):
        yield Spend(own.model, _SEARCHES)


def _advisors(members: Mapping[str, Any], body: bytes, own: Spend) -> Iterator[Spend]:
    """Tools that run a model of their own, at its standard speed."""
    for model, _ in _models_in(list_member(members, "tools"), body, "tools"):
        yield replace(own, model=model, terms=replace(own.terms, speed=None))


def _hops(members: Mapping[str, Any], body: bytes, own: Spend) -> Iterator[Spend]:
    """Models that take over from one that declines; fast only where asked, as the provider does it."""
    if isinstance(members.get("fallbacks"), str):
        return
    for model, speed in _models_in(list_member(members, "fallbacks"), body, "fallbacks"):
        yield replace(own, model=model, terms=replace(own.terms, speed=speed))


def _models_in(listed: list[Any], body: bytes, name: str) -> Iterator[tuple[str, str | None]]:
    """Model and speed of the entries of the list `name` that name a model.

    They are read once more from the bytes, so that an entry with a second `model` is refused.
    """
    if not any(isinstance(entry, dict) and "model" in entry for entry in listed):
        return
    for entry, raw in zip(listed, _ENTRIES.decode(member_bytes(body, name) or b"[]"), strict=True):
        if not isinstance(entry, dict) or "model" not in entry:
            continue
        try:
            read = read_members(bytes(raw), ("model", "speed"))
            found = required_model(read), text_member(read, "speed")
        except InvalidBody as error:
            raise InvalidBody(f"{error.message} (in an entry of {name})", param=name) from None
        yield found


def _references(members: Mapping[str, Any]) -> tuple[str, ...]:
    """The container that tools are to run in, where the request names one."""
    container = members.get("container")
    named = container.get("id") if isinstance(container, dict) else container
    return (named,) if isinstance(named, str) else ()
