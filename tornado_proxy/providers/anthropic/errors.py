"""Anthropic's error format.  Source: Anthropic API reference, "Errors"."""

from __future__ import annotations

import json

from tornado_proxy.domain.errors import ContinuedNotFound, RequestError

#: Error types by HTTP status.  405, 408, 431 and 503 are not on its page; each has the type of the nearest status,
#: because a client that branches on the type knows no other words.
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
    431: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(error: RequestError, request_id: str) -> bytes:
    """Return `{"type": "error", "error": {"type", "message", "code"}, "request_id"}`.

    `code` is the proxy's own stable error code; Anthropic's errors have none.  Anthropic's `details.error_code` is
    stated for a lost thread, because its SDKs send the whole conversation again when they read it.
    """
    shown: dict[str, object] = {"type": _TYPES.get(error.status, "api_error"), "message": error.client_message}
    if isinstance(error, ContinuedNotFound):
        shown["details"] = {"error_code": "thread_not_found"}  # anthropic 2.14, ThreadNotFoundError
    shown["code"] = error.code
    return json.dumps({"type": "error", "error": shown, "request_id": request_id}).encode()
