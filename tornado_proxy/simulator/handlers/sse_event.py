"""One server-sent event, as every streaming endpoint makes it."""

from __future__ import annotations

#: Name of an event (empty: the line is left out) and its data, JSON text.
Event = tuple[str, bytes]


def frame(event: Event) -> bytes:
    """The event as it stands in a stream."""
    name, data = event
    if name:
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"
