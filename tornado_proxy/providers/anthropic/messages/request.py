"""Finds the spends of a message request: its own model, an advisor's, its fallback models, web searches and
code execution.

`fallbacks: "default"` names no model: Anthropic chooses one by the kind of refusal, and the response names it.  Such a
request is admitted, because clients send it by default.  The model that served is priced when the response names it; a
model without a price leaves the record unsettled.
Source: Anthropic API reference, "Create a message"; "Refusals and fallback"; "Advisor tool".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.terms import make_terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.anthropic.messages.cache_lifetime import find_cache_ttl
from tornado_proxy.providers.anthropic.messages.code_execution import charges_code_execution
from tornado_proxy.providers.anthropic.messages.work import read_work
from tornado_proxy.providers.shared.json_body import (
    read_described,
    read_flag,
    read_list,
    read_members,
    read_model,
    read_raw,
    read_text,
)

#: The member that says who the request is made for, in `user_id` (Anthropic API reference, "Create a message").
_DESCRIBED = ("metadata",)

#: Members with which the provider keeps a message, so that later requests name it as `previous_message_id`.
_NAMING = ("thread", "diagnostics")

#: The members of a request that read_facts() needs.
MEMBERS = (
    "model",
    "stream",
    "service_tier",
    "speed",
    "inference_geo",
    "tools",
    "fallbacks",
    "container",
    "max_tokens",
    "mcp_servers",
    *_NAMING,
    *_DESCRIBED,
)

_TEXT = frozenset({Meter.INPUT, Meter.OUTPUT})
_SEARCHES = frozenset({Meter.WEB_SEARCHES})
_CONTAINER_TIME = frozenset({Meter.CONTAINER_SECONDS})

#: Anthropic chooses the fallback models.
_DEFAULT_FALLBACKS = "default"

#: Types of the search tool begin like this; a date follows.
_SEARCH_TOOL_PREFIX = "web_search_"

_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])


def read_facts(body: bytes, members: Mapping[str, Any]) -> RequestFacts:
    """Return the facts of the request `body`, whose `MEMBERS` are `members`.

    Raises:
        InvalidBody: the request names no model, or two parsers could read different models.
    """
    model = read_model(members)
    tier = read_text(members, "service_tier")
    terms = make_terms(tier, read_text(members, "speed"), read_text(members, "inference_geo"))
    own = Spend(model, _TEXT, terms=terms)
    tool_types = _read_tool_types(members)
    others = (
        *_search_spends(tool_types, own),
        *_code_execution_spends(tool_types, own),
        *_advisor_spends(members, body, own),
        *_fallback_spends(members, body, own),
    )
    return RequestFacts(
        model=model,
        spends=tuple(dict.fromkeys((own, *others))),
        stream=read_flag(members, "stream"),
        terms=make_terms(tier, cache_ttl=find_cache_ttl(body)),
        body_bytes=len(body),
        references=_read_references(members),
        continues=_read_continued(members),
        work=read_work(members, body),
        charges_code_execution=charges_code_execution(tool_types),
        names_response=any(isinstance(members.get(name), dict) for name in _NAMING),
        described=read_described(members, _DESCRIBED),
    )


def _read_tool_types(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types of the request's tools; a tool of the client's own may have none."""
    types = (tool.get("type") for tool in read_list(members, "tools") if isinstance(tool, dict))
    return tuple(name for name in types if isinstance(name, str))


def _code_execution_spends(tool_types: tuple[str, ...], own: Spend) -> Iterator[Spend]:
    """Yield the spend of the code execution tool, unless it is free."""
    if charges_code_execution(tool_types):
        yield Spend(own.model, _CONTAINER_TIME)


def _search_spends(tool_types: tuple[str, ...], own: Spend) -> Iterator[Spend]:
    """Yield the spend of the web search tool."""
    if any(name.startswith(_SEARCH_TOOL_PREFIX) for name in tool_types):
        # Searches have one price, whatever the tier and speed of the tokens.
        yield Spend(own.model, _SEARCHES)


def _advisor_spends(members: Mapping[str, Any], body: bytes, own: Spend) -> Iterator[Spend]:
    """Yield the spends of tools that run a model of their own, at its standard speed."""
    for model, _ in _read_models(read_list(members, "tools"), body, "tools"):
        yield replace(own, model=model, terms=replace(own.terms, speed=None))


def _fallback_spends(members: Mapping[str, Any], body: bytes, own: Spend) -> Iterator[Spend]:
    """Yield the spends of models that serve if another declines."""
    fallbacks = members.get("fallbacks")
    if fallbacks == _DEFAULT_FALLBACKS:
        return
    if isinstance(fallbacks, str) or any(not isinstance(entry, dict) for entry in read_list(members, "fallbacks")):
        raise InvalidBody('"fallbacks" must be "default" or a list of objects with a model', param="fallbacks")
    for model, speed in _read_models(read_list(members, "fallbacks"), body, "fallbacks"):
        # The provider runs a fallback fast only if its own entry says so, whatever the request's speed is.
        yield replace(own, model=model, terms=replace(own.terms, speed=speed))


def _read_models(entries: list[Any], body: bytes, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield model and speed of those entries of the list `name` that name a model.

    Entries are parsed again from the bytes of the body, so that one with two `model` members is rejected: JSON parsers
    differ on which of the two counts.
    """
    if not any(isinstance(entry, dict) and "model" in entry for entry in entries):
        return
    for entry, raw in zip(entries, _ENTRIES.decode(read_raw(body, name) or b"[]"), strict=True):
        if not isinstance(entry, dict) or "model" not in entry:
            continue
        try:
            members = read_members(bytes(raw), ("model", "speed"))
            model, speed = read_model(members), read_text(members, "speed")
        except InvalidBody as error:
            raise InvalidBody(f"{error.message} (in an entry of {name})", param=name) from None
        yield model, speed


def _read_continued(members: Mapping[str, Any]) -> str | None:
    """Return the id of the message after which the request continues a thread; the walk adds it to the references."""
    thread = members.get("thread")
    previous = thread.get("previous_message_id") if isinstance(thread, dict) else None
    return previous if isinstance(previous, str) else None


def _read_references(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the id of the container that tools shall run in, if the request names one."""
    container = members.get("container")
    container_id = container.get("id") if isinstance(container, dict) else container
    return (container_id,) if isinstance(container_id, str) else ()
