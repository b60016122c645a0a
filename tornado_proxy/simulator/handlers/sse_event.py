"""A server-sent event and its bytes in a stream."""

from __future__ import annotations

#: The event's name ("": no `event:` line) and its data, JSON text without line ends.
Event = tuple[str, bytes]


def format_event(event: Event) -> bytes:
    """Return the event's bytes in a stream (WHATWG HTML, "Server-sent events")."""
    name, data = event
    if name:
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"
