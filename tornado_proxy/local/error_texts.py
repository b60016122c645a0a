"""The messages in error responses of the hosted proxy, for the person at the machine; nothing stores them."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

#: Bytes of an error response that are read, and responses that are kept until their requests have ended.
_MAX_BYTES, _MAX_RESPONSES = 8 * 1024, 200


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorBody(msgspec.Struct):
    """An error as both providers write it: {"error": {"message": ...}}."""

    error: _Error


_decode = msgspec.json.Decoder(_ErrorBody).decode


class ErrorTexts:
    """Collects the bodies of error responses by request id."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()

    def add(self, request_id: str, data: bytes) -> None:
        """Note the next bytes of an error response."""
        self._bodies[request_id] = (self._bodies.get(request_id, b"") + data)[:_MAX_BYTES]
        if len(self._bodies) > _MAX_RESPONSES:
            self._bodies.popitem(last=False)

    def take(self, request_id: str) -> str:
        """Return the message of a request's response, "" if it was no error."""
        body = self._bodies.pop(request_id, b"")
        if not body:
            return ""
        try:
            return _decode(body).error.message
        except (msgspec.DecodeError, UnicodeDecodeError):
            return body.decode("utf-8", "replace").strip()
