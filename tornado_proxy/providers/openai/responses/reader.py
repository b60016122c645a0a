"""Reads the usage of a response object, alone or at the end of a stream of events.

    status                           basis
    completed, incomplete            REPORTED: usage, charged in full
    failed, without output           FREE: no usage, the provider did not start
    queued, in_progress              PENDING: a background response without usage yet
    cancelled, without usage         UNSETTLED
    anything else without usage      ESTIMATED

Source: OpenAI API reference, "The response object" and "Streaming events"; guide "Background mode".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, UsageItem, UsageReport
from tornado_proxy.providers.openai.images.image_tokens import ESTIMATE_METHOD
from tornado_proxy.providers.openai.responses.hosted_tools import (
    created_objects,
    describe_containers,
    estimate_images,
    ran_hosted_tools,
    read_image_usage,
    search_quantities,
)
from tornado_proxy.providers.openai.shared.text_usage import cache_write_meter, estimate_text, read_text_usage
from tornado_proxy.providers.openai.shared.usage_report import with_fault
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP, Shape
from tornado_proxy.providers.shared.json_values import as_text, decode_object
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: Events that end a response.
TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
FIRST_EVENTS = frozenset({"response.created", "response.queued", "response.in_progress"})
_UNFINISHED_STATUSES = frozenset({"queued", "in_progress"})

#: What is read of a response object: its usage, and of its output what is charged apart or can be referenced later.
_OUTPUT_TEXTS = ("arguments", "code", "input", "name")
RESPONSE_SHAPE: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "model", "status", "service_tier", "usage", "tool_usage"), KEEP),
    "tools": {"type": KEEP, "model": KEEP, "svg": {"model": KEEP}},
    "output": {
        **dict.fromkeys(("id", "type", "status", "size", "quality", "container_id", "svg_usage"), KEEP),
        **dict.fromkeys(_OUTPUT_TEXTS, COUNT),
        "action": {"type": KEEP},
        "environment": {"container_id": KEEP},
        "content": {"text": COUNT, "refusal": COUNT},
        "summary": {"text": COUNT},
    },
}

_IMAGES_ESTIMATED = (
    "the image tool's tokens were not reported; images are estimated by size and quality, their prompt is not known"
)


def report_response(facts: RequestFacts, response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response or compaction object; None if it should have usage and does not."""
    usage = response.get("usage")
    if not isinstance(usage, dict) or not usage:
        return _report_by_status(response)
    text_usage = read_text_usage(usage, cache_write=cache_write_meter(facts))
    model = as_text(response.get("model"))
    own_item = UsageItem(
        (*text_usage.quantities, *search_quantities(response)),
        model=model,
        terms=Terms(service_tier=as_text(response.get("service_tier"))),
        context_tokens=text_usage.context_tokens,
        # The published limit is "prompts with >272K input tokens", and no response states its usage prompt by prompt.
        summed=ran_hosted_tools(response),
    )
    image_item, image_faults = read_image_usage(facts, response)
    estimated_images = estimate_images(facts, response)
    usage_faults = (*text_usage.faults, *image_faults)
    basis = Basis.REPORTED if estimated_images is None else Basis.ESTIMATED
    notes = (*(() if estimated_images is None else (_IMAGES_ESTIMATED,)), *describe_containers(response))
    return UsageReport(
        items=tuple(item for item in (own_item, image_item, estimated_images) if item is not None),
        basis=Basis.UNSETTLED if usage_faults else basis,
        raw=msgspec.json.encode(_raw_usage(usage, response)).decode(),
        model=model,
        object_id=as_text(response.get("id")),
        objects=created_objects(response),
        estimate_method=None if estimated_images is None else ESTIMATE_METHOD,
        faults=(*usage_faults, *notes),
    )


def _report_by_status(response: Mapping[str, object]) -> UsageReport | None:
    """Return the report of a response without usage if its status explains why, else None."""
    model, object_id, status = (as_text(response.get(name)) for name in ("model", "id", "status"))
    if status in _UNFINISHED_STATUSES:
        return UsageReport(basis=Basis.PENDING, model=model, object_id=object_id)
    if status == "failed" and not response.get("output"):
        return UsageReport(basis=Basis.FREE, model=model, object_id=object_id)
    if status == "cancelled":
        fault = "the response was cancelled, and the provider did not state its usage"
        return UsageReport(basis=Basis.UNSETTLED, model=model, object_id=object_id, faults=(fault,))
    return None


def is_finished(body: bytes) -> bool:
    """Return True if `body`, a response object fetched by its id, is final: its usage will not change."""
    response = decode_object(body)
    return response is not None and as_text(response.get("status")) not in _UNFINISHED_STATUSES


def _raw_usage(usage: dict[str, object], response: Mapping[str, object]) -> dict[str, object]:
    """Return the usage to store.  `tool_usage` is a sibling of `usage` in the response and is stored inside it."""
    tool_usage = response.get("tool_usage")
    return {**usage, "tool_usage": tool_usage} if isinstance(tool_usage, dict) else usage


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")


_EVENT = msgspec.json.Decoder(_Event)


def _decode_event(data: bytes) -> _Event:
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = decode_object(data) or {}  # not strictly valid JSON
        response = msgspec.Raw(msgspec.json.encode(event.get("response")))
        return _Event(as_text(event.get("type")) or "", event.get("delta"), response)


class ResponseStreamReader:
    """A UsageReader for streams of events.

    The terminal event states usage, under `response`.  The stream has no [DONE].
    """

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._report: UsageReport | None = None
        self._first_response: dict[str, object] = {}
        self._text_bytes = 0
        self._ended = False
        self._failed = False

    def feed(self, data: bytes) -> None:
        """Read the events that the next bytes complete."""
        for block in self._blocks.feed(data):
            self._read(block)

    def close(self, *, complete: bool) -> None:
        """End the stream; read a last event without a blank line."""
        self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """Return the usage of the terminal event, else an estimate by the deltas."""
        report = self._report or self._report_without_usage()
        return with_fault(report, "an event of the stream is too large") if self._blocks.overflowed else report

    @property
    def object_id(self) -> str | None:
        """The response's id, from its first event on: a client can fetch a background response before its end."""
        return as_text(self._first_response.get("id"))

    def _report_without_usage(self) -> UsageReport:
        if self._first_response and not self._ended and self._facts.background:
            # The job continues without this stream; its usage is fetched later.
            model = as_text(self._first_response.get("model"))
            return UsageReport(basis=Basis.PENDING, model=model, object_id=self.object_id)
        if self._failed and not self._first_response and not self._text_bytes:
            # An error in place of a response: the provider generated nothing and charges nothing.
            return UsageReport(basis=Basis.FREE)
        return estimate_text(self._facts, self._text_bytes, self._first_response)

    def _read(self, block: bytes) -> None:
        data = parse_block(block).data
        if not data:
            return
        event = _decode_event(data)
        if isinstance(event.delta, str):
            self._text_bytes += len(event.delta.encode())
        elif event.type == "error":
            self._failed = True
        elif event.type in TERMINAL_EVENTS:
            self._end(decode_object(bytes(event.response)) or {})
        elif event.type in FIRST_EVENTS and not self._first_response:
            self._first_response = decode_object(bytes(event.response)) or {}

    def _end(self, response: dict[str, object]) -> None:
        self._ended = True
        self._first_response = self._first_response or response
        self._report = report_response(self._facts, response) or self._report
