"""Read decoded JSON of a provider without trusting its types: a value of another type counts as missing.

Usage readers never raise, so they take every member through these functions.  `json_body.py` is the strict counterpart
for client requests, which are rejected instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.providers.shared.json_skimmer import KEEP, JsonSkimmer, Shape
from tornado_proxy.providers.shared.lenient_json import decode_leniently

#: The members that metering needs from any response, event or frame.
_ENTRY: Mapping[str, Shape] = dict.fromkeys(("id", "type", "status"), KEEP)
_RESPONSE: Mapping[str, Shape] = {
    **dict.fromkeys(("id", "type", "model", "service_tier", "status", "usage", "tool_usage", "svg_usage"), KEEP),
    **dict.fromkeys(("stop_reason", "stop_details"), KEEP),
    "content": _ENTRY,
    "output": _ENTRY,
}
_ESSENTIAL: Mapping[str, Shape] = {
    **_RESPONSE,
    **dict.fromkeys(("item_id", "content_index", "response_id", "stream_id", "processing_status", "custom_id"), KEEP),
    "response": _RESPONSE,
    "message": _RESPONSE,
    "result": {"type": KEEP, "message": _RESPONSE},
}


def decode_object(data: bytes) -> dict[str, object] | None:
    """Decode a JSON object; return None for anything else, broken or empty JSON included.

    JSON that is not strictly valid is decoded leniently; if not even that is possible, because it is nested too deeply
    for example, the members that metering needs are read.
    """
    if not data:
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _decode_invalid(data)
    return value if isinstance(value, dict) else None


def _decode_invalid(data: bytes) -> dict[str, object] | None:
    value = decode_leniently(data)
    if value is not None:
        return value if isinstance(value, dict) else None
    skimmer = JsonSkimmer(_ESSENTIAL)
    skimmer.feed(data)
    return skimmer.result()


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


def make_quantities(counts: Iterable[tuple[Meter, int | Decimal]]) -> tuple[Quantity, ...]:
    """Return the quantities of the counts above zero: a provider states zero for each meter that was not used."""
    return tuple([Quantity(meter, Decimal(count)) for meter, count in counts if count > 0])
