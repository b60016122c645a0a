"""JSON that Python's dicts cannot hold: objects with repeated members, and member names written with escapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object; `escaped` writes each character of its name as \\uXXXX."""

    name: str
    value: Json
    escaped: bool = False


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object; its members keep their order, and names may repeat."""

    members: tuple[Member, ...] = ()


#: An array is a tuple.
Json = None | bool | int | float | str | tuple["Json", ...] | Object
#: The way to a value: the index of a member or an entry at each level.
Path = tuple[int, ...]


def encode(value: Json) -> str:
    """Return `value` as JSON text."""
    if isinstance(value, Object):
        return "{" + ",".join(f"{_encode_name(member)}:{encode(member.value)}" for member in value.members) + "}"
    if isinstance(value, tuple):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value)


def _encode_name(member: Member) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" for c in member.name) + '"' if member.escaped else json.dumps(member.name)


def decode(text: str | bytes) -> Json:
    """Return JSON text with all its members.

    Raises:
        ValueError: it is no JSON.
    """
    return _freeze(json.loads(text, object_pairs_hook=_Pairs))


class _Pairs(list[tuple[str, object]]):
    """The members of an object, as json.loads() reports them."""


def _freeze(value: object) -> Json:
    if isinstance(value, _Pairs):
        return Object(tuple(Member(name, _freeze(child)) for name, child in value))
    if isinstance(value, list):
        return tuple(map(_freeze, value))
    assert value is None or isinstance(value, str | int | float)
    return value


def iter_paths(value: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield the path and the value of `value` and of everything in it, outermost first."""
    yield path, value
    for index, child in enumerate(_children(value)):
        yield from iter_paths(child, (*path, index))


def edit_at(value: Json, path: Path, edit: Callable[[Json], Json]) -> Json:
    """Return `value` with the value at `path` edited."""
    if not path:
        return edit(value)
    index, rest = path[0], path[1:]
    if isinstance(value, Object):
        member = value.members[index]
        changed = replace(member, value=edit_at(member.value, rest, edit))
        return Object((*value.members[:index], changed, *value.members[index + 1 :]))
    assert isinstance(value, tuple)
    return (*value[:index], edit_at(value[index], rest, edit), *value[index + 1 :])


def _children(value: Json) -> tuple[Json, ...]:
    if isinstance(value, Object):
        return tuple(member.value for member in value.members)
    return value if isinstance(value, tuple) else ()
