"""Recorded exchanges of the media endpoints, and what they must come to."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tornado_proxy.domain.usage import UsageReport

FOLDER = Path(__file__).parents[2] / "fixtures" / "recorded"


def exchange(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def expected_lines(name: str) -> list[tuple[str, str, Decimal]]:
    """(model, meter, quantity) of every line, sorted; one meter of two readings is two lines."""
    lines = json.loads((FOLDER / "expected" / f"{name}.json").read_text())["lines"]
    return sorted((line["model"], line["meter"], Decimal(line["quantity"])) for line in lines)


def lines(reports: Iterable[UsageReport], requested_model: str | None = None) -> list[tuple[str, str, Decimal]]:
    return sorted(
        (reading.model or report.model or requested_model or "", quantity.meter.value, quantity.amount)
        for report in reports
        for reading in report.items
        for quantity in reading.quantities
    )


def request_body(name: str) -> tuple[bytes, str]:
    """Body and Content-Type of a recorded request."""
    request = exchange(name)["request"]
    content_type = request["headers"]["content-type"]
    if "body_base64" in request:
        return base64.b64decode(request["body_base64"]), content_type
    return json.dumps(request["body"]).encode(), content_type


def answer_body(name: str) -> bytes:
    response = exchange(name)["response"]
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    return response["body_text"].encode()
