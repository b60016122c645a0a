"""Builds event streams of messages as Anthropic writes them, and reads the quantities of reports."""

from __future__ import annotations

import json
from typing import Any

from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Meter, UsageItem, UsageReport
from tornado_proxy.providers.contract import ResponseHead

JSON = ResponseHead(200, "application/json")
SSE = ResponseHead(200, "text/event-stream")

MODEL = "claude-sonnet-5"
FACTS = RequestFacts(model=MODEL, spends=(Spend(MODEL, frozenset({Meter.INPUT})),), stream=True, body_bytes=400)


def event(kind: str, **members: Any) -> bytes:
    """Return one event of a stream."""
    data = json.dumps({"type": kind, **members}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(message_id: str = "msg_1", model: str = MODEL, **usage: Any) -> bytes:
    """Return a message_start that states `usage`."""
    message = {"id": message_id, "type": "message", "model": model, "content": [], "stop_reason": None, "usage": usage}
    return event("message_start", message=message)


def block(kind: str = "text", index: int = 0, **members: Any) -> bytes:
    """Return a content_block_start."""
    return event("content_block_start", index=index, content_block={"type": kind, **members})


def text(text: str, index: int = 0) -> bytes:
    """Return a content_block_delta with text."""
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def delta(stop_reason: str | None = "end_turn", **usage: Any) -> bytes:
    """Return a message_delta that states `usage`."""
    return event("message_delta", delta={"stop_reason": stop_reason, "stop_sequence": None}, usage=usage)


STOP = event("message_stop")
PING = event("ping")
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def count_by_meter(item: UsageItem) -> dict[str, int]:
    """Return the quantities of an item by the names of their meters."""
    return {quantity.meter.value: int(quantity.amount) for quantity in item.quantities}


def counts(report: UsageReport) -> list[tuple[str | None, dict[str, int]]]:
    """Return model and quantities of each item."""
    return [(item.model, count_by_meter(item)) for item in report.items]
