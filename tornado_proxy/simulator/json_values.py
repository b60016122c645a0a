"""Read JSON values of unknown shape: a value of the wrong type counts as empty."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: A JSON object that the simulator reads or writes.
Json = dict[str, object]

encode = msgspec.json.encode
decode = msgspec.json.decode


def as_text(value: object, default: str = "") -> str:
    """Return `value` if it is a string, else `default`."""
    return value if isinstance(value, str) else default


def as_count(value: object, default: int = 0) -> int:
    """Return `value` if it is a non-negative integer, else `default`."""
    # bool is a subclass of int, and `"n": true` is not a count.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def as_list(value: object) -> list[object]:
    """Return `value` if it is an array, else an empty list."""
    return value if isinstance(value, list) else []


def as_object(value: object) -> Mapping[str, object]:
    """Return `value` if it is an object, else an empty dict."""
    return value if isinstance(value, dict) else {}


def encode_text(value: object) -> str:
    """Return `value` as compact JSON text."""
    return encode(value).decode()
