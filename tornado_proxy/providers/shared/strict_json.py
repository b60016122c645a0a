"""Decodes JSON in which no object has a repeated member.

JSON parsers differ on which of two equal members counts (RFC 8259, section 4), so a repeated member could hide a model
from admission.
"""

from __future__ import annotations

import json
from collections import Counter

from tornado_proxy.domain.errors import InvalidBody


def decode_strict_object(data: str | bytes) -> dict[str, object]:
    """Return the JSON object in `data`.

    Raises:
        InvalidBody: `data` is anything else, or an object at any depth has a repeated member.
    """
    value = decode_strict(data)
    if not isinstance(value, dict):
        raise InvalidBody("the body or frame must be one JSON object")
    return value


def decode_strict(data: str | bytes) -> object:
    """Return the JSON value in `data`.

    Raises:
        InvalidBody: `data` is no JSON, or an object at any depth has a repeated member.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique_members)
    except (ValueError, RecursionError) as error:
        raise InvalidBody("the body or frame must be one JSON object") from error


def _unique_members(members: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(members)
    if len(unique) != len(members):
        counts = Counter(name for name, _ in members)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise InvalidBody(f'an object contains "{repeated[:100]}" twice; send it once')
    return unique
