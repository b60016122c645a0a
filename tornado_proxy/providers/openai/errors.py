"""Error bodies in OpenAI's format.  Source: OpenAI API reference, "Error codes"."""

from __future__ import annotations

import json

from tornado_proxy.domain.errors import RequestError


def error_body(error: RequestError, request_id: str) -> bytes:
    """Return `{"error": {message, type, param, code}}`.

    SDKs choose their exception by the HTTP status and show these members.  OpenAI's body has no request id, so
    `request_id` only goes into a header.
    """
    shown = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return json.dumps({"error": shown}).encode()
