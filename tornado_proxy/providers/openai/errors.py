"""Errors in OpenAI's format.  Source: OpenAI API reference, "Error codes"."""

from __future__ import annotations

import json

from tornado_proxy.domain.errors import ContinuedNotFound, RequestError

#: Error types by HTTP status, if they differ from ours.
_TYPES = {404: "invalid_request_error"}


def error_body(error: RequestError, request_id: str) -> bytes:
    """Return `{"error": {message, type, param, code}}`.

    SDKs choose their exception by the HTTP status and show these members.  OpenAI's body has no request id, so
    `request_id` only goes into a header.
    """
    return json.dumps({"error": show_error(error)}).encode()


def show_error(error: RequestError) -> dict[str, str | None]:
    """Return the member `error` of a response's body, or of an event."""
    param = "previous_response_id" if isinstance(error, ContinuedNotFound) else error.param
    kind = _TYPES.get(error.status, error.kind)
    return {"message": error.client_message, "type": kind, "param": param, "code": error.code}
