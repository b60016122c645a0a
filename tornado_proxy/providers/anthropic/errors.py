"""Errors as Anthropic writes them.  Source: Anthropic API reference, "Errors"."""

from __future__ import annotations

import json

from tornado_proxy.domain.errors import RequestError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(error: RequestError, request_id: str) -> bytes:
    """`{"type": "error", "error": {type, message}, "request_id"}`; our stable code stands beside the message."""
    shown = {"type": _TYPES.get(error.status, "api_error"), "message": error.message, "code": error.code}
    return json.dumps({"type": "error", "error": shown, "request_id": request_id}).encode()
