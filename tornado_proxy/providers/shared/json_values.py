"""Read decoded JSON of a provider without trusting its types: a value of another type counts as missing.

Usage readers never raise, so they take every member through these functions.  `json_body.py` is the strict counterpart
for client requests, which are rejected instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, TypeVar, get_args

import msgspec

from tornado_proxy.domain.units import MIB
from tornado_proxy.domain.usage import Meter, Quantity
from tornado_proxy.providers.shared.json_skimmer import KEEP, JsonSkimmer, Shape
from tornado_proxy.providers.shared.lenient_json import decode_leniently

#: The largest count that is read.  No response uses a billion tokens, and the sums of the ledger have 64 bits, which a
#: few records with a provider's nonsense would exceed for all others.
MAX_COUNT = 10**9

#: A count that usage states; None if it states none.
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)] | None

#: Steps of the reader of last resort, each of some microseconds, in which nothing else can run.
_MAX_STEPS = 20_000
#: Bytes of JSON that is not strictly valid and is repaired, 0.3 us for each escape; larger ones go to that reader.
_MAX_REPAIRED_BYTES = 1 * MIB

_CountsT = TypeVar("_CountsT", bound=msgspec.Struct)

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
    for example, the members that metering needs are read, as far as that takes some milliseconds.
    """
    if not data:
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _decode_invalid(data)
    return value if isinstance(value, dict) else None


def _decode_invalid(data: bytes) -> dict[str, object] | None:
    value = decode_leniently(data) if len(data) <= _MAX_REPAIRED_BYTES else None
    if value is not None:
        return value if isinstance(value, dict) else None
    skimmer = JsonSkimmer(_ESSENTIAL)
    skimmer.feed(data, _MAX_STEPS)
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

    A value that is not a count (negative, fractional, true, text, above MAX_COUNT) is 0 as well and adds a sentence to
    `faults`.
    """
    value = usage.get(name)
    if value is None:
        return 0
    # bool is a subclass of int: `true` would count as 1.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        faults.append(f"usage.{name} is {str(value)[:40]!r}, not a count")
        return 0
    if value > MAX_COUNT:
        faults.append(f"usage.{name} is above {MAX_COUNT}, not a count")
        return 0
    return value


def read_counts(usage: Mapping[str, object], kind: type[_CountsT], faults: list[str]) -> _CountsT:
    """Return the counts of a usage object, all at once.

    A value that is not a count is 0 and adds a sentence to `faults`, as with read_count(); a value that is no object
    where `kind` has counts of its own is an empty one.

    Args:
        usage: The usage object.
        kind: A Struct whose members are `Count`, or `T | None` for such a Struct T; the default of each is None.
        faults: The faults so far.
    """
    try:
        return msgspec.convert(usage, kind)
    except msgspec.ValidationError:
        return msgspec.convert(_make_countable(usage, kind, faults), kind)


def _make_countable(usage: Mapping[str, object], kind: type[msgspec.Struct], faults: list[str]) -> dict[str, object]:
    """Return the members of `kind` as numbers and objects of numbers, and describe the others."""
    members: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        value = usage.get(field.name)
        nested = [part for part in get_args(field.type) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
        if value is not None and nested:
            members[field.name] = _make_countable(as_object(value), nested[0], faults)
        elif value is not None:
            members[field.name] = read_count(usage, field.name, faults)
    return members


def make_quantities(counts: Iterable[tuple[Meter, int | Decimal]]) -> tuple[Quantity, ...]:
    """Return the quantities of the counts above zero: a provider states zero for each meter that was not used."""
    return tuple([Quantity(meter, Decimal(count)) for meter, count in counts if count > 0])
