"""Reads the usage of a response object, whole or at the end of a stream of events.

completed, incomplete            usage, charged in full
failed, without output           no usage: nothing was begun, free
queued, in_progress              a background response: no usage yet, pending
anything else without usage      estimated
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, UsageItem, UsageReport
from tornado_proxy.providers.openai.images.image_tokens import ESTIMATE_METHOD
from tornado_proxy.providers.openai.responses.hosted_tools import (
    container_notes,
    created_objects,
    image_reading,
    tool_quantities,
    unstated_images,
)
from tornado_proxy.providers.openai.shared.text_report import estimate_text, with_fault, word
from tornado_proxy.providers.openai.shared.text_usage import read_text_usage
from tornado_proxy.providers.openai.shared.usage_report import decode_object
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: Events that end a response.
TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_BEGINNING = frozenset({"response.created", "response.queued", "response.in_progress"})
_UNFINISHED = frozenset({"queued", "in_progress"})

#: A cache write that lives twelve hours has another price, and usage does not say which one it was.
_TWELVE_HOURS = "12h"

_UNSTATED_IMAGES = (
    "the image tool's tokens were not reported; pictures go by size and quality, their prompt is not known"
)


def report_response(facts: RequestFacts, response: Mapping[str, Any]) -> UsageReport | None:
    """The report of a response or compaction object; None where its usage should be there and is not."""
    model, object_id = word(response, "model"), word(response, "id")
    usage, status = response.get("usage"), word(response, "status")
    if not isinstance(usage, dict) or not usage:
        if status in _UNFINISHED:
            return UsageReport(basis=Basis.PENDING, model=model, object_id=object_id)
        if status == "failed" and not response.get("output"):
            return UsageReport(basis=Basis.FREE, model=model, object_id=object_id)
        if status == "cancelled":
            unsaid = "the response was cancelled, and what it had used was not stated"
            return UsageReport(basis=Basis.UNSETTLED, model=model, object_id=object_id, faults=(unsaid,))
        return None
    written = Meter.CACHE_WRITE_12H if facts.terms.cache_ttl == _TWELVE_HOURS else Meter.CACHE_WRITE
    read = read_text_usage(usage, cache_write=written)
    image, image_faults = image_reading(facts, response)
    own = UsageItem(
        (*read.quantities, *tool_quantities(response)),
        model=model,
        terms=Terms(service_tier=word(response, "service_tier")),
        context_tokens=read.context_tokens,
    )
    drawn = unstated_images(facts, response)
    unsettled = (*read.faults, *image_faults)
    told = Basis.REPORTED if drawn is None else Basis.ESTIMATED
    return UsageReport(
        items=tuple(one for one in (own, image, drawn) if one is not None),
        basis=Basis.UNSETTLED if unsettled else told,
        raw=msgspec.json.encode(_stated(usage, response)).decode(),
        model=model,
        object_id=object_id,
        objects=created_objects(response),
        estimate_method=None if drawn is None else ESTIMATE_METHOD,
        faults=(*unsettled, *(() if drawn is None else (_UNSTATED_IMAGES,)), *container_notes(response)),
    )


def is_finished(body: bytes) -> bool:
    """Whether a response object, as it is fetched by its id, will state no more usage than it does."""
    response = decode_object(body)
    return response is not None and word(response, "status") not in _UNFINISHED


def _stated(usage: dict[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    """Usage as the provider states it; `tool_usage` stands beside it in the answer."""
    tool_usage = response.get("tool_usage")
    return {**usage, "tool_usage": tool_usage} if isinstance(tool_usage, dict) else usage


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")


_EVENT = msgspec.json.Decoder(_Event)


class ResponseStreamReader:
    """A stream of events; usage stands in the terminal one, under `response`.  There is no [DONE]."""

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._report: UsageReport | None = None
        self._begun: dict[str, Any] = {}
        self._text_bytes = 0
        self._ended = False
        self._refused = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        for block in self._blocks.feed(data):
            self._read(block)

    def close(self, *, complete: bool) -> None:
        """Read a last event that has no blank line behind it."""
        self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """What the terminal event says, else an estimate by the deltas that were seen."""
        report = self._report or self._without_usage()
        return (
            with_fault(report, "an event of the stream is too large to be read") if self._blocks.overflowed else report
        )

    @property
    def object_id(self) -> str | None:
        """The response's id as soon as the stream has named it: a background response may be fetched before its end."""
        return word(self._begun, "id")

    def _without_usage(self) -> UsageReport:
        if self._begun and not self._ended and self._facts.background:
            # The job goes on without this stream; its usage is to be fetched.
            return UsageReport(basis=Basis.PENDING, model=word(self._begun, "model"), object_id=self.object_id)
        if self._refused and not self._begun and not self._text_bytes:
            return UsageReport(basis=Basis.FREE)  # an error in place of a response: nothing was begun
        return estimate_text(self._facts, self._text_bytes, self._begun)

    def _read(self, block: bytes) -> None:
        data = parse_block(block).data
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if isinstance(event.delta, str):
            self._text_bytes += len(event.delta.encode())
        elif event.type == "error":
            self._refused = True
        elif event.type in TERMINAL_EVENTS:
            self._end(decode_object(bytes(event.response)) or {})
        elif event.type in _BEGINNING and not self._begun:
            self._begun = decode_object(bytes(event.response)) or {}

    def _end(self, response: dict[str, Any]) -> None:
        self._ended = True
        self._begun = self._begun or response
        self._report = report_response(self._facts, response) or self._report
