"""Errors as OpenAI writes them.  Source: OpenAI API reference, "Error codes"."""

from __future__ import annotations

import json

from tornado_proxy.domain.errors import RequestError


def error_body(error: RequestError, request_id: str) -> bytes:
    """`{"error": {message, type, param, code}}`; SDKs raise their exceptions by the status and show these."""
    shown = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return json.dumps({"error": shown}).encode()
