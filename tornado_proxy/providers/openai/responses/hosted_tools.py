"""Hosted tools of /v1/responses: what they can cost before a call, and what they did cost after it.

    web_search             tool_usage.web_search.num_requests; where it is absent, web_search_call items that searched
    file_search            file_search_call items, one charge each
    image_generation       tool_usage.image_gen: tokens of the image tool's own model, which `usage` does not have;
                           where it is absent, estimated by size and quality
    code_interpreter, shell   by the life of a container that several responses may share: no answer states it

Source: OpenAI pricing page, "Built-in tools"; docs/usage.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.request import IMAGE_TOOL_ROLE, RequestFacts, Spend
from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.providers.openai.images.image_tokens import image_tokens
from tornado_proxy.providers.openai.shared.modal_usage import read_usage

#: The image tool's model where neither request nor answer names one.  The provider's own default changes with time;
#: its answers echo which it was, and are believed.
_DEFAULT_IMAGE_MODEL = "gpt-image-2"
_IMAGE_TOOL = "image_generation"
_DRAWN = frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE})

#: `web_search_preview_2025_03_11` is `web_search_preview`: a tool's price does not depend on its date.
_DATE_SUFFIX = re.compile(r"_\d{4}_\d{2}_\d{2}$")
_PREVIEW = "web_search_preview"
_TOOL_METERS = {
    "web_search": Meter.WEB_SEARCHES,
    _PREVIEW: Meter.WEB_SEARCHES,
    "file_search": Meter.FILE_SEARCHES,
}

#: Where a tool that runs code says in which container.
_CONTAINER_MEMBERS = {"code_interpreter": "container", "shell": "environment"}
_OWN_MACHINE = "local"


def tool_spends(model: str, tools: Iterable[object]) -> tuple[Spend, ...]:
    """What `tools` of a request can cost beyond the tokens of `model`."""
    return tuple(spend for tool in tools if isinstance(tool, dict) for spend in _spends(model, tool))


def _spends(model: str, tool: Mapping[str, Any]) -> tuple[Spend, ...]:
    kind = _kind(tool)
    if kind == _IMAGE_TOOL:
        named = tool.get("model")
        image_model = named if isinstance(named, str) else _DEFAULT_IMAGE_MODEL
        return (Spend(image_model, _DRAWN, role=IMAGE_TOOL_ROLE),)
    if kind in _TOOL_METERS:
        return (Spend(model, frozenset({_TOOL_METERS[kind]}), terms=Terms(tool=kind)),)
    container = _container(tool)
    if isinstance(container, dict) and container.get("type") != _OWN_MACHINE:
        memory = container.get("memory_limit")
        terms = Terms(memory_limit=memory) if isinstance(memory, str) else NO_TERMS
        return (Spend(model, frozenset({Meter.CONTAINER_SECONDS}), terms=terms),)
    return ()


def containers_of(tools: Iterable[object]) -> tuple[str, ...]:
    """Ids of existing containers that `tools` of a request name."""
    named = (_container(tool) for tool in tools if isinstance(tool, dict))
    ids = (one.get("container_id") if isinstance(one, dict) else one for one in named)
    return tuple(one for one in ids if isinstance(one, str))


def tool_quantities(response: Mapping[str, Any]) -> tuple[Quantity, ...]:
    """Searches that the response is charged for."""
    items = _objects(response.get("output"))
    searches = _searches(response, items)
    files = sum(item.get("type") == "file_search_call" for item in items)
    found = []
    if searches:
        found.append(Quantity(Meter.WEB_SEARCHES, Decimal(searches), Terms(tool=_search_tool(response))))
    if files:
        found.append(Quantity(Meter.FILE_SEARCHES, Decimal(files)))
    return tuple(found)


def image_reading(facts: RequestFacts, response: Mapping[str, Any]) -> tuple[UsageItem | None, tuple[str, ...]]:
    """The image tool's own tokens at its own model, and what does not add up in them."""
    usage = _tool_usage(response, "image_gen")
    if usage is None:
        return None, ()
    read = read_usage(usage, unnamed_output=Meter.OUTPUT_IMAGE)
    reading = UsageItem(read.quantities, model=_image_model(facts, response), context_tokens=read.context_tokens)
    return reading if read.quantities else None, read.faults


def unstated_images(facts: RequestFacts, response: Mapping[str, Any]) -> UsageItem | None:
    """Tokens of pictures by the size and quality that the answer echoes, where it does not state their tokens.

    What was read to draw them is not known.
    """
    if _tool_usage(response, "image_gen") is not None:
        return None
    items = _objects(response.get("output"))
    drawn = [item for item in items if item.get("type") == "image_generation_call" and _succeeded(item)]
    tokens = sum(image_tokens(_text(item.get("size")), _text(item.get("quality"))) for item in drawn)
    quantity = Quantity(Meter.OUTPUT_IMAGE, Decimal(tokens))
    return UsageItem((quantity,), model=_image_model(facts, response)) if drawn else None


def _image_model(facts: RequestFacts, response: Mapping[str, Any]) -> str:
    echoed = (tool.get("model") for tool in _objects(response.get("tools")) if tool.get("type") == _IMAGE_TOOL)
    asked = (spend.model for spend in facts.spends if spend.role is not None)
    return next((one for one in (*echoed, *asked) if isinstance(one, str)), _DEFAULT_IMAGE_MODEL)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def container_notes(response: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence for each container that ran: its time is charged by the provider, and stated nowhere."""
    return tuple(
        f"container {one} ran code; its time is charged by the container, and is not in this record"
        for one in sorted(set(_containers_used(response)))
    )


def created_objects(response: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of output items and containers, which later requests may refer to."""
    ids = (item.get("id") for item in _objects(response.get("output")))
    return tuple(dict.fromkeys((*(one for one in ids if isinstance(one, str)), *_containers_used(response))))


def _containers_used(response: Mapping[str, Any]) -> tuple[str, ...]:
    items = _objects(response.get("output"))
    environments = (item.get("environment") for item in items)
    ids = (
        *(item.get("container_id") for item in items),
        *(one.get("container_id") for one in environments if isinstance(one, dict)),
    )
    return tuple(one for one in ids if isinstance(one, str))


def _searches(response: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> int:
    """Searches as `tool_usage` counts them; items are a poorer witness, for pages that are opened cost nothing."""
    number = (_tool_usage(response, "web_search") or {}).get("num_requests")
    if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
        return number
    calls = [item for item in items if item.get("type") == "web_search_call" and _succeeded(item)]
    actions = [call.get("action") for call in calls]
    return sum(isinstance(action, dict) and action.get("type") == "search" for action in actions)


def _succeeded(item: Mapping[str, Any]) -> bool:
    """A tool call that failed is not charged; one without a status is taken for done."""
    return item.get("status") != "failed"


def _search_tool(response: Mapping[str, Any]) -> str:
    kinds = [_kind(tool) for tool in _objects(response.get("tools"))]
    return _PREVIEW if _PREVIEW in kinds else "web_search"


def _tool_usage(response: Mapping[str, Any], tool: str) -> dict[str, Any] | None:
    stated = response.get("tool_usage")
    usage = stated.get(tool) if isinstance(stated, dict) else None
    return usage if isinstance(usage, dict) else None


def _kind(tool: Mapping[str, Any]) -> str:
    return _DATE_SUFFIX.sub("", str(tool.get("type")))


def _container(tool: Mapping[str, Any]) -> object:
    return tool.get(_CONTAINER_MEMBERS.get(_kind(tool), ""))


def _objects(listed: object) -> list[dict[str, Any]]:
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
