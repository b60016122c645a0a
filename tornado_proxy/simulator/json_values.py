"""Reading JSON that came from outside, without trusting its shape: a wrong type is an empty value."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: A JSON object that the simulator writes or has read.
Json = dict[str, object]

encode = msgspec.json.encode
decode = msgspec.json.decode


def as_text(value: object, default: str = "") -> str:
    """The string, or `default`."""
    return value if isinstance(value, str) else default


def as_count(value: object, default: int = 0) -> int:
    """The non-negative integer, or `default`."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def as_list(value: object) -> list[object]:
    """The array, or an empty one."""
    return value if isinstance(value, list) else []


def as_object(value: object) -> Mapping[str, object]:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def encode_text(value: object) -> str:
    """Compact JSON as text."""
    return encode(value).decode()
