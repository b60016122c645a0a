"""Recorded exchanges with the providers, and the quantities that their usage must give."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tornado_proxy.domain.usage import UsageReport

FOLDER = Path(__file__).parents[1] / "fixtures" / "recorded"


def exchange(name: str) -> dict[str, Any]:
    """Return a recorded exchange; tests/fixtures/recorded/SOURCE.md lists the sources."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def expected_lines(name: str) -> list[tuple[str, str, Decimal]]:
    """Return (model, meter, quantity) of every expected line, sorted; two items with one meter are two lines."""
    lines = json.loads((FOLDER / "expected" / f"{name}.json").read_text())["lines"]
    return sorted((line["model"], line["meter"], Decimal(line["quantity"])) for line in lines)


def lines(reports: Iterable[UsageReport], requested_model: str | None = None) -> list[tuple[str, str, Decimal]]:
    """Return (model, meter, quantity) of every quantity in the reports, sorted."""
    return sorted(
        (item.model or report.model or requested_model or "", quantity.meter.value, quantity.amount)
        for report in reports
        for item in report.items
        for quantity in item.quantities
    )


def request_body(name: str) -> tuple[bytes, str]:
    """Return body and Content-Type of a recorded request."""
    request = exchange(name)["request"]
    content_type = request["headers"]["content-type"]
    if "body_base64" in request:
        return base64.b64decode(request["body_base64"]), content_type
    return json.dumps(request["body"]).encode(), content_type


def response_body(name: str) -> bytes:
    """Return the body of a recorded response."""
    response = exchange(name)["response"]
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    return response["body_text"].encode()
