"""Hosted tools of /v1/responses: the spends of a request, and the usage of a response.

    web_search             tool_usage.web_search.num_requests; if missing, the web_search_call items that searched
    file_search            one charge for each file_search_call item
    image_generation       tool_usage.image_gen: tokens of the image tool's own model, which `usage` does not include;
                           if missing, estimated by size and quality; svg_usage of each call: the model that
                           wrote the SVG
    code_interpreter, shell   charged by the life of a container, which several responses can share (containers.py)

Source: OpenAI pricing page, "Built-in tools"; docs/usage.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from tornado_proxy.domain.request import IMAGE_TOOL_ROLE, RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.providers.openai.images.image_tokens import image_tokens
from tornado_proxy.providers.openai.images.svg_author import SVG, author_spend, read_author_usage
from tornado_proxy.providers.openai.responses.containers import new_container_terms, used_containers
from tornado_proxy.providers.openai.responses.declared_tools import flatten_tools, tool_kind
from tornado_proxy.providers.openai.shared.modal_usage import read_modal_usage
from tornado_proxy.providers.shared.json_values import MAX_COUNT, as_object, as_objects, as_text

#: The image tool's model if neither request nor response names one (OpenAI guide, "Image generation tool").  The
#: provider changes its default over time; its responses echo the model, and the echo counts.
_DEFAULT_IMAGE_MODEL = "gpt-image-2"
_IMAGE_TOOL = "image_generation"
_IMAGE_METERS = frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE})

_SEARCH_PREVIEW = "web_search_preview"
_TOOL_METERS = {
    "web_search": Meter.WEB_SEARCHES,
    _SEARCH_PREVIEW: Meter.WEB_SEARCHES,
    "file_search": Meter.FILE_SEARCHES,
}

#: Output items of tools that run at the provider.
_HOSTED_CALLS = frozenset(
    {"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call", "shell_call"}
)


def tool_spends(model: str, tools: Iterable[Mapping[str, object]]) -> tuple[Spend, ...]:
    """Return the spends of a request's `tools` beyond the tokens of `model`."""
    return tuple(dict.fromkeys(spend for tool in tools for spend in _spends_of(model, tool)))


def _spends_of(model: str, tool: Mapping[str, object]) -> tuple[Spend, ...]:
    kind = tool_kind(tool)
    if kind == _IMAGE_TOOL:
        requested_model = tool.get("model")
        image_model = requested_model if isinstance(requested_model, str) else _DEFAULT_IMAGE_MODEL
        return (Spend(image_model, _IMAGE_METERS, role=IMAGE_TOOL_ROLE), *_author_spends(model, tool))
    if kind in _TOOL_METERS:
        return (Spend(model, frozenset({_TOOL_METERS[kind]}), terms=Terms(tool=kind)),)
    terms = new_container_terms(kind, tool)
    return () if terms is None else (Spend(model, frozenset({Meter.CONTAINER_SECONDS}), terms=terms),)


def _author_spends(model: str, tool: Mapping[str, object]) -> tuple[Spend, ...]:
    """Return the spend of the model that writes an SVG: the response's own unless the tool names one."""
    author = as_object(tool.get("svg")).get("model")
    if isinstance(author, str):
        return (author_spend(author),)
    return (author_spend(model),) if tool.get("output_format") == SVG else ()


def search_quantities(response: Mapping[str, object]) -> tuple[Quantity, ...]:
    """Return the web and file searches that the response is charged for."""
    items = as_objects(response.get("output"))
    web_searches = _count_web_searches(response, items)
    file_searches = sum(item.get("type") == "file_search_call" for item in items)
    quantities = (
        Quantity(Meter.WEB_SEARCHES, Decimal(web_searches), Terms(tool=_search_tool(response))),
        Quantity(Meter.FILE_SEARCHES, Decimal(file_searches)),
    )
    return tuple(quantity for quantity in quantities if quantity.amount)


def read_image_usage(facts: RequestFacts, response: Mapping[str, object]) -> tuple[UsageItem | None, tuple[str, ...]]:
    """Return the image tool's tokens at its own model, None if there are none, and faults in their counts."""
    stated = _tool_usage(response, "image_gen")
    if stated is None:
        return None, ()
    usage = read_modal_usage(stated, default_output=Meter.OUTPUT_IMAGE)
    item = UsageItem(usage.quantities, model=_image_model(facts, response), context_tokens=usage.context_tokens)
    return item if usage.quantities else None, usage.faults


def read_author_items(response: Mapping[str, object]) -> tuple[tuple[UsageItem, ...], tuple[str, ...]]:
    """Return the tokens of the models that wrote SVGs for the image tool, one item for each call, and faults."""
    usages = [read_author_usage(item) for item in as_objects(response.get("output"))]
    items = tuple(item for item, _ in usages if item is not None)
    return items, tuple(fault for _, faults in usages for fault in faults)


def estimate_images(facts: RequestFacts, response: Mapping[str, object]) -> UsageItem | None:
    """Return image tokens by the size and quality that the response echoes; None if it states them or has no image.

    The input tokens of the image tool remain unknown.
    """
    if _tool_usage(response, "image_gen") is not None:
        return None
    items = as_objects(response.get("output"))
    images = [item for item in items if item.get("type") == "image_generation_call" and _succeeded(item)]
    model = _image_model(facts, response)
    tokens = sum(image_tokens(model, as_text(image.get("size")), as_text(image.get("quality"))) for image in images)
    return UsageItem((Quantity(Meter.OUTPUT_IMAGE, Decimal(tokens)),), model=model) if images else None


def _image_model(facts: RequestFacts, response: Mapping[str, object]) -> str:
    image_tools = (tool for tool in flatten_tools(as_objects(response.get("tools"))) if tool_kind(tool) == _IMAGE_TOOL)
    echoed = (tool.get("model") for tool in image_tools)
    requested = (spend.model for spend in facts.spends if spend.role is not None)
    return next((model for model in (*echoed, *requested) if isinstance(model, str)), _DEFAULT_IMAGE_MODEL)


def ran_hosted_tools(response: Mapping[str, object]) -> bool:
    """Return True if tools ran at the provider: the model reads their results in a prompt of its own."""
    return any(as_text(item.get("type")) in _HOSTED_CALLS for item in as_objects(response.get("output")))


def created_objects(response: Mapping[str, object]) -> tuple[str, ...]:
    """Return the ids of output items and containers, which later requests can reference.

    A compacted response repeats items of the request, with the ids that the caller wrote; only its compaction is new.
    """
    items = as_objects(response.get("output"))
    if response.get("object") == "response.compaction":
        items = [item for item in items if item.get("type") == "compaction"]
    item_ids = (item.get("id") for item in items)
    ids = (*(item_id for item_id in item_ids if isinstance(item_id, str)), *used_containers(response))
    return tuple(dict.fromkeys(ids))


def _count_web_searches(response: Mapping[str, object], items: Sequence[Mapping[str, object]]) -> int:
    """Return the searches that `tool_usage` states, else the items that searched.

    Items are the second choice: their actions also open pages, which is free.
    """
    stated = (_tool_usage(response, "web_search") or {}).get("num_requests")
    if isinstance(stated, int) and not isinstance(stated, bool) and 0 <= stated <= MAX_COUNT:
        return stated
    calls = [item for item in items if item.get("type") == "web_search_call" and _succeeded(item)]
    return sum(as_object(call.get("action")).get("type") == "search" for call in calls)


def _succeeded(item: Mapping[str, object]) -> bool:
    """Return True unless the tool call failed: a failed one is free, one without a status counts as done."""
    return item.get("status") != "failed"


def _search_tool(response: Mapping[str, object]) -> str:
    kinds = [tool_kind(tool) for tool in flatten_tools(as_objects(response.get("tools")))]
    return _SEARCH_PREVIEW if _SEARCH_PREVIEW in kinds else "web_search"


def _tool_usage(response: Mapping[str, object], tool: str) -> dict[str, object] | None:
    usage = as_object(response.get("tool_usage")).get(tool)
    return usage if isinstance(usage, dict) else None
