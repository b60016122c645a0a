"""Reads the usage of a stream of events: one response, or several that are told apart by their id.

    response.created, queued, in_progress   a response begins
    *.delta, response.output_item.done      its output, counted for an estimate
    response.completed, incomplete,         its end, with usage under `response`; each id is charged once
      failed, cancelled
    error                                   the stream fails

A response that fails or is cancelled after output was seen is estimated if it states no usage.  The stream has no
[DONE].

Source: OpenAI API reference, "Streaming events" of the Responses API.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.openai.responses.reader import (
    OUTPUT_ITEM_SHAPE,
    RESPONSE_SHAPE,
    estimate_response,
    report_response,
)
from tornado_proxy.providers.shared.json_skimmer import JsonSkimmer
from tornado_proxy.providers.shared.json_values import as_text, decode_object
from tornado_proxy.providers.shared.usage_report import merge_reports, with_fault
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: Events that end a response.
TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
FIRST_EVENTS = frozenset({"response.created", "response.queued", "response.in_progress"})
_ITEM_DONE = "response.output_item.done"

#: Output items kept of a response for an estimate.  A response has at most some hundred tool calls.
MAX_ITEMS = 1000


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")


_EVENT = msgspec.json.Decoder(_Event)


class _Response:
    """One response of the stream.

    `members` are those of its first event.  `report` is set when its end states its usage, or why there is none.
    """

    __slots__ = ("_delta_bytes", "_items", "_text_bytes", "ended", "failed", "members", "report")

    def __init__(self) -> None:
        self.members: dict[str, object] = {}
        self.ended = False
        self.failed = False
        self.report: UsageReport | None = None
        self._items: list[dict[str, object]] = []
        self._delta_bytes = 0
        self._text_bytes = 0  # of whole items, for hosts that send no deltas

    @property
    def has_output(self) -> bool:
        """True if the provider has generated anything."""
        return bool(self._delta_bytes or self._items)

    @property
    def output_bytes(self) -> int:
        """The bytes of the text that was seen."""
        return max(self._delta_bytes, self._text_bytes)

    def add_delta(self, text: str) -> None:
        """Count the text of a delta."""
        self._delta_bytes += len(text.encode())

    def add_item(self, raw_item: bytes) -> None:
        """Keep the members of a finished output item that have a price of their own, and count its text."""
        skimmer = JsonSkimmer(OUTPUT_ITEM_SHAPE)
        skimmer.feed(raw_item)
        item = skimmer.result()
        if item is not None and len(self._items) < MAX_ITEMS:
            self._items.append(item)
            self._text_bytes += skimmer.text_bytes

    def end(self, facts: RequestFacts, response: dict[str, object], raw_response: bytes) -> None:
        """Read the usage of a terminal event.  Of repeated ends the last one with usage counts."""
        self.ended = True
        self.failed = self.failed or response.get("status") == "failed"
        self.members = self.members or response
        report = report_response(facts, response)
        if report is None:
            self._text_bytes = max(self._text_bytes, _count_text(raw_response))
        # Output that was seen has cost something, whatever the status of a response without usage.
        elif report.items or not self.has_output or report.basis is Basis.PENDING:
            self.report = report

    def estimate(self, facts: RequestFacts) -> UsageReport:
        """Return an estimate by the output that was seen."""
        text_bytes = max(self.output_bytes, facts.seen_output_bytes)
        report = estimate_response(facts, text_bytes, {**self.members, "output": self._items})
        return replace(report, output_bytes=self.output_bytes)


class ResponseStreamReader:
    """A UsageReader for streams of events."""

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._responses: dict[str | None, _Response] = {}
        self._current: _Response | None = None
        self._failed = False

    def feed(self, data: bytes) -> None:
        """Read the events that the next bytes complete."""
        for block in self._blocks.feed(data):
            self._read(block)

    def close(self, *, complete: bool) -> None:
        """End the stream; read a last event without a blank line."""
        self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """Return the usage that the terminal events state, else an estimate by the output that was seen."""
        reports = [self._report(response) for response in self._responses.values()] or [self._report_empty()]
        failed = self._failed or (self._current is not None and self._current.failed)
        report = replace(merge_reports(reports), failed=failed)
        return with_fault(report, "an event of the stream is too large") if self._blocks.overflowed else report

    @property
    def object_id(self) -> str | None:
        """The response's id, from its first event on: a client can fetch a background response before its end."""
        first = next(iter(self._responses.values()), None)
        return None if first is None else as_text(first.members.get("id"))

    def _report(self, response: _Response) -> UsageReport:
        if response.report is not None:
            return response.report
        object_id, model = (as_text(response.members.get(name)) for name in ("id", "model"))
        if response.members and not response.ended and self._facts.background:
            # The job continues without this stream; its usage is fetched later.
            output_bytes = response.output_bytes
            return UsageReport(basis=Basis.PENDING, model=model, object_id=object_id, output_bytes=output_bytes)
        return response.estimate(self._facts)

    def _report_empty(self) -> UsageReport:
        """Return the report of a stream without a response."""
        if self._failed:
            # An error in place of a response: the provider generated nothing and charges nothing.
            return UsageReport(basis=Basis.FREE)
        return _Response().estimate(self._facts)

    def _read(self, block: bytes) -> None:
        data = parse_block(block).data
        if not data:
            return
        event = _decode_event(data)
        if isinstance(event.delta, str):
            self._ensure_response().add_delta(event.delta)
        elif event.type == "error":
            self._failed = True
        elif event.type == _ITEM_DONE:
            self._ensure_response().add_item(bytes(event.item))
        elif event.type in TERMINAL_EVENTS:
            self._failed = event.type == "response.failed"
            raw_response = bytes(event.response)
            members = decode_object(raw_response) or {}
            self._find_response(members).end(self._facts, members, raw_response)
        elif event.type in FIRST_EVENTS:
            members = decode_object(bytes(event.response)) or {}
            response = self._find_response(members)
            response.members = response.members or members

    def _ensure_response(self) -> _Response:
        """Return the current response; begin one without members if no event has named one."""
        return self._find_response({}) if self._current is None else self._current

    def _find_response(self, members: dict[str, object]) -> _Response:
        """Return the response with the id in `members` and make it the current one."""
        response_id = as_text(members.get("id"))
        unnamed = self._responses.get(None)
        if response_id is None:
            response = self._current or self._responses.setdefault(None, _Response())
        elif unnamed is not None and response_id not in self._responses:
            # Output came before the event that names its response.
            self._responses = {response_id: unnamed, **{key: value for key, value in self._responses.items() if key}}
            response = unnamed
        else:
            response = self._responses.setdefault(response_id, _Response())
        self._current = response
        return response


def _decode_event(data: bytes) -> _Event:
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = decode_object(data) or {}  # not strictly valid JSON
        item, response = (msgspec.Raw(msgspec.json.encode(event.get(name))) for name in ("item", "response"))
        return _Event(as_text(event.get("type")) or "", event.get("delta"), item, response)


def _count_text(raw_response: bytes) -> int:
    skimmer = JsonSkimmer(RESPONSE_SHAPE)
    skimmer.feed(raw_response)
    return skimmer.text_bytes
