"""Read decoded JSON of a provider without trusting its types: a value of another type counts as missing.

Usage readers never raise, so they take every member through these functions.  `json_body.py` is the strict counterpart
for client requests, which are rejected instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


def decode_object(data: bytes) -> dict[str, object] | None:
    """Decode a JSON object; return None for anything else, broken or empty JSON included."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def as_object(value: object) -> dict[str, object]:
    """Return `value` if it is an object, else {}."""
    return value if isinstance(value, dict) else {}


def as_objects(value: object) -> list[dict[str, object]]:
    """Return the objects in `value` if it is a list, else []."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Return `value` if it is a string, else None."""
    return value if isinstance(value, str) else None


def read_count(usage: Mapping[str, object], name: str, faults: list[str]) -> int:
    """Return the count `usage[name]`; 0 if it is missing or null.

    A value that is not a count (negative, fractional, true, text) is 0 as well and adds a sentence to `faults`.
    """
    value = usage.get(name)
    if value is None:
        return 0
    # bool is a subclass of int: `true` would count as 1.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"usage.{name} is {str(value)[:40]!r}, not a count")
        return 0
    return value
