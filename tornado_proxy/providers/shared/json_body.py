"""Reads the few members of a JSON request body that admission needs, and edits the body without re-encoding it.

msgspec decodes only the requested members: 0.3 ms for a body of 1 MB, 1 us for a small one.  It calls a hook for each
occurrence of such a member, even if its name is escaped, so a repeated member is found.  JSON parsers differ on which
of two counts: a request could be admitted for one model and served by another.  `json_values.py` is the tolerant
counterpart for responses.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tornado_proxy.domain.errors import InvalidBody

#: Occurrences of a member's text that edit_member() tries.  Each costs a pass over the body, so a body full of
#: look-alikes would take a minute of CPU without a limit.
MAX_EDIT_ATTEMPTS = 8

#: Occurrences of a member's name that edit_member() looks at, with any value.  They cost a microsecond each, and no
#: ordinary body has more than a few.
MAX_NAME_OCCURRENCES = 1000

#: Characters of a member that read_described() reads.  Codex's turn metadata has some 1,000, and more with several
#: workspaces.
_MAX_DESCRIBED_CHARACTERS = 16 * 1024

#: Members of an object that it reads.
_MAX_DESCRIBED_ENTRIES = 32

#: More than any model generates choices (128) or images (10) for one request (OpenAI API reference, `n`).
MAX_COUNT = 9_999

#: A whole number as text; group 1 has its digits.
_WHOLE_NUMBER = re.compile(r"\+?0*([0-9]{1,4})(?:\.0*)?")

#: The start of the object; group 1 is its end if the object is empty.
_OPENING = re.compile(rb"\{(?=[ \t\r\n]*(\})?)")


def read_members(body: bytes, names: Sequence[str]) -> Mapping[str, Any]:
    """Return those of the members `names` of the JSON object `body` that are present and not null.

    Raises:
        InvalidBody: the body is not a JSON object, or contains one of the members twice, null or not.
    """
    struct, members_by_type = _make_struct(tuple(names))
    seen: list[tuple[str, Any]] = []

    def record(member_type: type, value: object) -> object:
        name, instance = members_by_type[member_type]
        seen.append((name, value))
        return instance

    _decode(body, struct, record)
    members = dict(seen)
    if len(members) < len(seen):
        names_seen = [name for name, _ in seen]
        repeated = next(name for name in names_seen if names_seen.count(name) > 1)
        raise InvalidBody(f'the body contains "{repeated}" twice; send it once', param=repeated)
    return {name: value for name, value in members.items() if value is not None}


def split_members(body: bytes) -> list[tuple[str, msgspec.Raw]]:
    """Return every member of the JSON object `body` with its value as written, repeated ones too.

    The values are views of `body`: a large one takes no memory.

    Raises:
        InvalidBody: the body is not a JSON object.
    """
    members: dict[_Name, msgspec.Raw] = _decode(body, dict[_Name, msgspec.Raw], lambda _, name: _Name(name))
    return [(name.text, raw) for name, raw in members.items()]


def split_list(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the entries of a JSON list as written, as views of `raw`.

    Raises:
        InvalidBody: `raw` is no list.
    """
    entries: list[msgspec.Raw] = _decode(raw, list[msgspec.Raw], None)
    return entries


class _Name:
    """The name of a member.  Equal names are different keys, so that a decoded object keeps its repeated members."""

    __slots__ = ("text",)

    def __init__(self, text: object) -> None:
        self.text = str(text)


def read_text(members: Mapping[str, Any], name: str) -> str | None:
    """Return a text member, None if it is missing.

    Raises:
        InvalidBody: the member is of another type.
    """
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidBody(f'"{name}" must be text', param=name)
    return value


def read_flag(members: Mapping[str, Any], name: str) -> bool:
    """Return a boolean member, False if it is missing.

    Raises:
        InvalidBody: the member is of another type, which the provider's parser could take for true.
    """
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise InvalidBody(f'"{name}" must be true or false', param=name)
    return value


def read_limit(members: Mapping[str, Any], *names: str) -> int | None:
    """Return the smallest of the positive whole numbers among the members `names`, None if there is none.

    Such a member limits what a request can cost.  The provider rejects a value of another type, so it limits nothing.
    """
    values = [members.get(name) for name in names]
    # The exact type: a bool is an int as well.
    return min([value for value in values if type(value) is int and value > 0], default=None)


def read_count(value: object) -> int:
    """Return the positive whole number in `value`, at most MAX_COUNT; 1 if it is none.

    Such a member multiplies what a request can cost.  A provider that converts types takes 2.0 and "2" as 2, so they
    count as well; providers reject other values.
    """
    if isinstance(value, str) and (number := _WHOLE_NUMBER.fullmatch(value)):
        value = int(number[1])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return min(value, MAX_COUNT) if type(value) is int and value > 0 else 1


def read_list(members: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list member, [] if it is missing.

    Raises:
        InvalidBody: the member is of another type.
    """
    value = members.get(name, [])
    if not isinstance(value, list):
        raise InvalidBody(f'"{name}" must be a list', param=name)
    return value


def read_option(body: bytes, members: Mapping[str, Any], holder: str, name: str) -> str | None:
    """Return the text member `name` of the object `holder`, None if either is missing.

    `members` are those of `body` that read_members() has read, `holder` among their names.

    Raises:
        InvalidBody: the holder is no object, or the member is repeated or no text.
    """
    # Most bodies have no such object, and to search a large one again takes time.
    raw = read_raw(body, holder) if holder in members else None
    if raw is None:
        return None
    if not raw.startswith(b"{"):
        raise InvalidBody(f'"{holder}" must be an object', param=holder)
    return read_text(read_members(raw, (name,)), name)


def read_model(members: Mapping[str, Any]) -> str:
    """Return the member `model`.

    Raises:
        InvalidBody: it is missing, empty or not text.
    """
    model = read_text(members, "model")
    if not model:
        raise InvalidBody('"model" is missing; name the model to use', param="model")
    return model


def read_described(members: Mapping[str, Any], names: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return the texts of the members `names`, and those in an object under the name `holder.member`.

    They say who and what the request is made for (domain/attribution.py) and never refuse it: a value of another type,
    or one that is too long, says nothing.  `members` are those that read_members() has read, `names` among them.
    """
    if members.keys().isdisjoint(names):
        return ()
    return tuple([pair for name in names if name in members for pair in _read_texts(name, members[name])])


def _read_texts(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        entries = list(value.items())[:_MAX_DESCRIBED_ENTRIES]
        return [(f"{name}.{key}", text) for key, text in entries if _is_short_text(text)]
    return [(name, value)] if isinstance(value, str) and _is_short_text(value) else []


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_DESCRIBED_CHARACTERS


def insert_first(body: bytes, member: bytes) -> bytes:
    """Return the JSON object `body` with `member` (`"name":value`) inserted before its first member."""
    # Before the first member: any other position would have to be found by parsing the members.
    opening = _OPENING.search(body)
    assert opening is not None
    separator = b"" if opening[1] else b","
    return body[: opening.end()] + member + separator + body[opening.end() :]


def edit_member(body: bytes, name: str, edit: Callable[[bytes], bytes]) -> bytes:
    """Return `body` with the value of its member `name` edited; every other byte is unchanged.

    Args:
        body: A JSON object that contains the member.
        name: The member's name.
        edit: Returns the new value for the old one, both as JSON text.

    Raises:
        InvalidBody: the member cannot be found in the text, because its name is written with escapes.
    """
    raw = read_raw(body, name)
    assert raw is not None
    edited = edit(raw)
    if edited == raw:
        return body
    # The same text can be nested deeper, in a tool's schema for example.  Only the edit of the right occurrence changes
    # the member itself, so each is tried and the result is parsed again.
    for start in itertools.islice(_find_value(body, name, raw), MAX_EDIT_ATTEMPTS):
        changed = body[:start] + edited + body[start + len(raw) :]
        if read_raw(changed, name) == edited:
            return changed
    raise InvalidBody(f'"{name}" cannot be completed; write it once, without escapes', param=name)


def _find_value(body: bytes, name: str, raw: bytes) -> Iterator[int]:
    """Yield the start of each value `raw` of a member `name`, at any depth."""
    # The value comes from the client and can have megabytes, so it is compared as bytes: as part of the pattern it
    # would take seconds to compile, and the cache of patterns would keep it.
    for occurrence in itertools.islice(_name_pattern(name).finditer(body), MAX_NAME_OCCURRENCES):
        if body.startswith(raw, occurrence.end()):
            yield occurrence.end()


@functools.cache
def _name_pattern(name: str) -> re.Pattern[bytes]:
    return re.compile(b'"%s"[ \t\r\n]*:[ \t\r\n]*' % re.escape(name.encode()))


def read_raw(body: bytes, name: str) -> bytes | None:
    """Return the value of the member `name` of the JSON object `body` as written, None if it is missing."""
    view = view_raw(body, name)
    return None if view is None else bytes(view)


def view_raw(body: bytes, name: str) -> memoryview | None:
    """Return the same as a view of `body`: a large value takes no memory."""
    try:
        return memoryview(_make_raw_decoder(name).decode(body).value)
    except msgspec.ValidationError:
        return None


def has_member(body: bytes, name: str) -> bool:
    """Return True if the JSON object `body` has the member `name`, null or not."""
    return read_raw(body, name) is not None


def _decode(body: bytes | msgspec.Raw, kind: Any, hook: Callable[[type, object], object] | None) -> Any:
    """Return `body` decoded as `kind`.

    Raises:
        InvalidBody: the body is not a JSON object.
    """
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=hook)
    except msgspec.ValidationError:
        raise InvalidBody("the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBody(f"the body is not JSON: {error}" if body else "the body is empty; send JSON") from None
    except RecursionError:
        raise InvalidBody("the body is nested too deeply") from None


@functools.cache
def _make_struct(names: tuple[str, ...]) -> tuple[Any, Mapping[type, tuple[str, object]]]:
    """Return a struct with these members, and the name and an instance for each member's type.

    Each member has a type of its own, because msgspec tells the hook the type only.  The type is not `T | None`: for a
    union msgspec decodes null without a call of the hook.
    """
    types = {name: type(f"Member_{name}", (), {}) for name in names}
    fields: Any = [(name, member_type, None) for name, member_type in types.items()]
    members_by_type = {member_type: (name, member_type()) for name, member_type in types.items()}
    return msgspec.defstruct("Members", fields), members_by_type


@functools.cache
def _make_raw_decoder(name: str) -> msgspec.json.Decoder[Any]:
    """Return a decoder of one member, `value` in the result, as the text in which it is written."""
    fields: Any = [("value", msgspec.Raw)]
    return msgspec.json.Decoder(msgspec.defstruct("Raw", fields, rename={"value": name}))
