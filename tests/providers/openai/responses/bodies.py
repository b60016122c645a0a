"""Requests and responses that the tests of /v1/responses use."""

from __future__ import annotations

import json
from typing import Any

from tests.providers.reading import read_three_ways
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import ResponseHead
from tornado_proxy.providers.openai.responses.endpoint import make_reader

JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")
FACTS = RequestFacts(model="gpt-4o", body_bytes=400)
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def request(**members: Any) -> bytes:
    """Return a request body with `members`."""
    return json.dumps({"model": "gpt-4o", "input": "hi"} | members).encode()


def response(**members: Any) -> dict[str, Any]:
    """Return a completed response object with `members`."""
    return {"id": "resp_1", "model": "gpt-4o-2024-08-06", "status": "completed", "usage": USAGE} | members


def report_json(body: dict[str, Any], facts: RequestFacts = FACTS) -> UsageReport:
    """Return the report of a JSON response."""
    return read_three_ways(lambda: make_reader(facts, JSON), json.dumps(body).encode())
