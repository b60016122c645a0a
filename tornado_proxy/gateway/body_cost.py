"""Tells from the bytes of a body whether the event loop can read it without delaying others."""

from __future__ import annotations

#: Bytes of a body that is read on the event loop: about a millisecond for text.
MAX_BYTES_READ_ON_LOOP = 64 * 1024

#: Objects and lists of such a body: each takes about a microsecond, and 64 KiB of empty ones took 25 ms.
MAX_VALUES_READ_ON_LOOP = 6000


def is_quick(body: bytes) -> bool:
    """Return True if the event loop can read `body` without delaying others."""
    if len(body) > MAX_BYTES_READ_ON_LOOP:
        return False
    # Each value takes at least two bytes.
    return len(body) <= 2 * MAX_VALUES_READ_ON_LOOP or (body.count(b"{") + body.count(b"[") <= MAX_VALUES_READ_ON_LOOP)
