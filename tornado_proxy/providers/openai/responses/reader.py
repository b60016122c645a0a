"""Reads the usage of a response object; stream_reader.py finds it in a stream of events.

    status                           basis
    completed, incomplete            REPORTED: usage, charged in full
    failed, without output           FREE: no usage, the provider did not start
    queued, in_progress              PENDING: a background response without usage yet
    anything else without usage      ESTIMATED

Source: OpenAI API reference, "The response object" and "Streaming events"; guide "Background mode".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, UsageItem, UsageReport
from tornado_proxy.providers.openai.images.image_tokens import ESTIMATE_METHOD
from tornado_proxy.providers.openai.responses.containers import CONTAINER_METHOD, read_containers
from tornado_proxy.providers.openai.responses.hosted_tools import (
    created_objects,
    estimate_images,
    ran_hosted_tools,
    read_author_items,
    read_image_usage,
    search_quantities,
)
from tornado_proxy.providers.openai.shared.text_usage import cache_write_meter, estimate_text, read_text_usage
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP, Shape
from tornado_proxy.providers.shared.json_values import as_objects, as_text, decode_object

_UNFINISHED_STATUSES = frozenset({"queued", "in_progress"})

#: The members of a response object that are read: its usage, and the parts of its output that have a price of their own
#: or that later requests can reference.
OUTPUT_ITEM_SHAPE: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "type", "status", "size", "quality", "container_id", "svg_usage"), KEEP),
    **dict.fromkeys(("arguments", "code", "input", "name"), COUNT),
    "action": {"type": KEEP},
    "environment": {"container_id": KEEP},
    "content": {"text": COUNT, "refusal": COUNT},
    "summary": {"text": COUNT},
}
_TOOL_SHAPE: Mapping[str, Shape] = {
    **dict.fromkeys(("type", "model", "container", "environment"), KEEP),
    "svg": {"model": KEEP},
}
RESPONSE_SHAPE: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "model", "status", "service_tier", "usage", "tool_usage"), KEEP),
    **dict.fromkeys(("object", "previous_response_id", "conversation"), KEEP),
    "tools": {**_TOOL_SHAPE, "tools": _TOOL_SHAPE},
    "output": OUTPUT_ITEM_SHAPE,
}

_IMAGES_ESTIMATED = (
    "the image tool's tokens were not reported; images are estimated by size and quality, their prompt is not known"
)


def report_response(facts: RequestFacts, response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response or compaction object; None if it should have usage and does not."""
    usage = response.get("usage")
    if not isinstance(usage, dict) or not usage:
        return _report_by_status(facts, response)
    text_usage = read_text_usage(usage, cache_write=cache_write_meter(facts))
    model = as_text(response.get("model"))
    container_quantities, containers = read_containers(facts, response)
    own_item = UsageItem(
        (*text_usage.quantities, *search_quantities(response), *container_quantities),
        model=model,
        terms=Terms(
            service_tier=as_text(response.get("service_tier")), completion_window=facts.terms.completion_window
        ),
        context_tokens=text_usage.context_tokens,
        # The published limit is "prompts with >272K input tokens", and no response states its usage prompt by prompt.
        summed=ran_hosted_tools(response),
    )
    image_item, image_faults = read_image_usage(facts, response)
    author_items, author_faults = read_author_items(response)
    estimated_images = estimate_images(facts, response)
    usage_faults = (*text_usage.faults, *image_faults, *author_faults)
    method = CONTAINER_METHOD if containers else None
    notes = tuple(use.note for use in containers)
    if estimated_images is not None:
        method, notes = ESTIMATE_METHOD, (_IMAGES_ESTIMATED, *notes)
    return UsageReport(
        items=tuple(item for item in (own_item, image_item, estimated_images, *author_items) if item is not None),
        basis=Basis.UNSETTLED if usage_faults else Basis.REPORTED if method is None else Basis.ESTIMATED,
        raw=msgspec.json.encode(_raw_usage(usage, response)).decode(),
        model=model,
        object_id=as_text(response.get("id")),
        objects=created_objects(response),
        containers=containers,
        estimate_method=method,
        faults=(*usage_faults, *notes),
        failed=response.get("status") == "failed",
    )


def estimate_response(facts: RequestFacts, text_bytes: int, response: Mapping[str, object]) -> UsageReport:
    """Return an estimate for a response without usage, from its text, its searches and its images.

    `text_bytes` is the length in UTF-8 of the text that was seen; `response` holds the members that are known.
    """
    report = estimate_text(facts, text_bytes, response)
    container_quantities, containers = read_containers(facts, response)
    quantities = (*report.items[0].quantities, *search_quantities(response), *container_quantities)
    own_item = replace(report.items[0], quantities=quantities)
    images = estimate_images(facts, response)
    author_items, author_faults = read_author_items(response)
    return replace(
        report,
        items=(own_item, *(() if images is None else (images,)), *author_items),
        objects=created_objects(response),
        containers=containers,
        faults=(
            *author_faults,
            *(() if images is None else (_IMAGES_ESTIMATED,)),
            *(use.note for use in containers),
        ),
        failed=response.get("status") == "failed",
    )


def _report_by_status(facts: RequestFacts, response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response without usage if its status explains why, else None."""
    model, object_id, status = (as_text(response.get(name)) for name in ("model", "id", "status"))
    if status in _UNFINISHED_STATUSES:
        return UsageReport(basis=Basis.PENDING, model=model, object_id=object_id)
    if status == "failed" and not response.get("output") and not facts.seen_output_bytes:
        return UsageReport(basis=Basis.FREE, model=model, object_id=object_id, failed=True)
    return None


def estimate_seen_output(facts: RequestFacts) -> UsageReport:
    """Return an estimate of a response that the provider no longer has, by the output that has passed."""
    return estimate_text(facts, facts.seen_output_bytes)


def is_finished(body: bytes) -> bool:
    """Return True if `body`, a response object fetched by its id, is final: its usage will not change."""
    response = decode_object(body)
    return response is not None and as_text(response.get("status")) not in _UNFINISHED_STATUSES


def _raw_usage(usage: dict[str, object], response: Mapping[str, object]) -> dict[str, object]:
    """Return the usage to store, with the usage that the response states elsewhere: of tools, and of SVG authors."""
    tool_usage = response.get("tool_usage")
    svg_usages = [item["svg_usage"] for item in as_objects(response.get("output")) if item.get("svg_usage")]
    elsewhere: dict[str, object] = {"tool_usage": tool_usage} if isinstance(tool_usage, dict) else {}
    return {**usage, **elsewhere, **({"svg_usage": svg_usages} if svg_usages else {})}
