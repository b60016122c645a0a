"""Cuts the reason of a WebSocket close frame to its limit."""

from __future__ import annotations

#: A control frame has at most 125 bytes, two of which are the code (RFC 6455 section 5.5).
_MAX_REASON_BYTES = 120


def cut_close_reason(text: str) -> str:
    """Return `text`, cut to the bytes in UTF-8 that a close frame carries."""
    return text.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
