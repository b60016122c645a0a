"""Reads the few members of a JSON request body that admission needs, and tells which names occur in it.

msgspec decodes only the requested members: 0.3 ms for a body of 1 MB, 1 us for a small one.  It calls a hook for each
occurrence of such a member, even if its name is escaped, so a repeated member is found.  JSON parsers differ on which
of two counts: a request could be admitted for one model and served by another.  `json_values.py` is the tolerant
counterpart for responses.

A name is searched in the bytes of the whole body, without decoding them: nearly every body names no object, and needs
no walk (body_walk.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.member_rules import MemberRules

#: Characters of a member that read_described() reads.  Codex's turn metadata has some 1,000, and more with several
#: workspaces.
_MAX_DESCRIBED_CHARACTERS = 16 * 1024

#: Members of an object that it reads.
_MAX_DESCRIBED_ENTRIES = 32

#: More than any model generates choices (128) or images (10) for one request (OpenAI API reference, `n`).
MAX_COUNT = 9_999

#: A whole number as text; group 1 has its digits.
_WHOLE_NUMBER = re.compile(r"\+?0*([0-9]{1,4})(?:\.0*)?")

#: A member name with an escaped ASCII character.  No encoder writes one, so it can only hide a name from the search.
_ESCAPED_NAME = re.compile(rb'\\u00[0-7][0-9a-fA-F][^"\\]{0,100}(?:\\.[^"\\]{0,100}){0,20}"[ \t\r\n]*:')
_ESCAPED_ASCII = rb"\u00"

#: The length of a body, and the bytes for each of its quotation marks, from which on it is split at them.
MIN_SPLIT_BYTES, MIN_BYTES_PER_QUOTE = 64 * 1024, 1000

#: Bytes in three places of a body that are probed, and the quotation marks in each from which on it is not split.
_PROBED_BYTES, _MAX_PROBED_QUOTES = 4096, 16

#: Bytes of the longest name that is searched for, and more.
MAX_NAME_BYTES = 64

#: A letter, digit or sign written as an escape, in a name or a value.  JSON encoders write none of them so, but for <,
#: > and & in Go.
_ESCAPED_LETTER = re.compile(rb"\\u00[2-7]")


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
    if None in members.values():
        return {name: value for name, value in members.items() if value is not None}
    return members


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


def may_need_walk(body: bytes, rules: MemberRules) -> bool:
    """Return True if `body` may name an object, or more than one model.

    Inside JSON text quotation marks are escaped, so `"name"` in the bytes is a member or a whole string value.
    """
    texts = _list_short_texts(body) if len(body) >= MIN_SPLIT_BYTES else None
    if texts is None:
        names_found = _has_names(body, rules)
    else:
        names_found = not rules.names.isdisjoint(texts) or texts.count(b"model") > 1
    if names_found:
        return True
    return body.find(b"\\") >= 0 and body.find(_ESCAPED_ASCII) >= 0 and _ESCAPED_NAME.search(body) is not None


def _has_names(body: bytes, rules: MemberRules) -> bool:
    """Return True if `body` has a name of the rules, or `"model"` twice, in one pass.

    The pass takes 26 ns for each quotation mark: 2.7 ms for 1 MB of short messages, a substring search for each name 7.
    """
    first = rules.names_pattern.search(body)
    if first is None:
        return False
    return first[0] != b'"model' or rules.names_pattern.search(body, first.end()) is not None


def _list_short_texts(body: bytes) -> list[bytes] | None:
    """Return the short texts between two quotation marks of a large body; None if it has many marks.

    A long prompt has few.  To find a single byte takes a fortieth of the time of a search for a name.
    """
    if _is_dense(body):
        return None
    texts: list[bytes] = []
    start = body.find(b'"')
    for _ in range(len(body) // MIN_BYTES_PER_QUOTE):
        if (end := body.find(b'"', start + 1)) < 0:
            return texts
        if end - start <= MAX_NAME_BYTES:
            texts.append(body[start + 1 : end])
        start = end
    return None


def _is_dense(body: bytes) -> bool:
    """Return True if `body` has many quotation marks in several places: it is not split in vain then."""
    quarter = len(body) // 4
    starts = (quarter, 2 * quarter, 3 * quarter)
    return all(body.count(b'"', start, start + _PROBED_BYTES) > _MAX_PROBED_QUOTES for start in starts)


def find_strings(body: bytes, names: Iterable[bytes]) -> frozenset[bytes]:
    """Return those of `names` that are in `body`, within quotation marks."""
    texts = _list_short_texts(body) if len(body) >= MIN_SPLIT_BYTES else None
    if texts is None:
        # The name alone first: nearly every body has none of them, and the quoted one is made for each search.
        return frozenset([name for name in names if body.find(name) >= 0 and body.find(b'"%b"' % name) >= 0])
    return frozenset(names).intersection(texts)


def has_escaped_letters(body: bytes) -> bool:
    """Return True if a letter, digit or sign in `body` is written as an escape, which can hide a name."""
    return body.find(b"\\") >= 0 and _ESCAPED_LETTER.search(body) is not None


def find_content(
    body: bytes, names: Iterable[bytes], list_schemas: Callable[[], Iterable[object]] = tuple
) -> frozenset[bytes]:
    """Return those of `names` that are in `body`, as find_strings(), beyond the schemas of the client's tools.

    A name in a schema is that of a parameter, such as `file`, which the model fills in as text.
    """
    found = find_strings(body, names)
    # In a schema, an escape can stand for a name that the body has as content.
    return _find_outside(body, found, list_schemas()) if found and not has_escaped_letters(body) else found


def _find_outside(body: bytes, names: frozenset[bytes], schemas: Iterable[object]) -> frozenset[bytes]:
    try:
        text = msgspec.json.encode(list(schemas))
    except (RecursionError, UnicodeEncodeError):  # a deep schema, or half a character
        return names
    return frozenset(name for name in names if body.count(b'"%b"' % name) != text.count(b'"%b"' % name))


def is_text_only(body: bytes, opaque: Iterable[bytes], list_schemas: Callable[[], Iterable[object]] = tuple) -> bool:
    """Return True if `body` has none of the members and types `opaque`, whose tokens are not in the body as text.

    A text that happens to be such a name makes the request seem larger than it is, never smaller.  `list_schemas`
    returns the schemas of the client's tools.
    """
    return not find_content(body, opaque, list_schemas) and not has_escaped_letters(body)


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
