"""Reads a few members of a JSON object that arrives in pieces: any size, in bounded memory, tolerant of the rest.

Theory of operation.  A *shape* lists the members that are read:

    KEEP         the value, whatever it is
    COUNT        strings are not kept, only the bytes of their text are counted; lists of strings too
    {name: ...}  an object with these members; a list stands for each of its entries

Bytes go in; the kept members come out as a smaller JSON text, which is decoded at the end.  Everything else is skipped
by its brackets and quotation marks alone, so nothing beside a wanted member can make that member unreadable: an escape
that is no character, `-Infinity`, nesting of any depth, megabytes of log probabilities or base64.

    feed ──> _skip_root ──> _read_key ──> _read_colon ──> _read_value ──> _read_end ──> _read_key ...
                                                             ├── _read_string, _read_scalar
                                                             └── _pass_nested: a container that is skipped or copied

Each state is a method; it returns the index after the bytes that it read, or None if it needs more.  A byte that is not
JSON is skipped: this reads responses that are paid for already, and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import repeat
from typing import Final

from tornado_proxy.domain.units import MIB
from tornado_proxy.providers.shared.json_string import find_string_end
from tornado_proxy.providers.shared.lenient_json import decode_leniently


class Leaf(Enum):
    """A part of a shape that has no members; see KEEP and COUNT in the module docstring."""

    KEEP = auto()
    COUNT = auto()


KEEP: Final = Leaf.KEEP
COUNT: Final = Leaf.COUNT
Shape = Leaf | Mapping[str, "Shape"]

#: Bytes of one kept string; longer than any id, model name or size.  A longer one is kept as "".
MAX_STRING_BYTES = 16 * 1024
#: Bytes kept of lists and nested objects.  A response with 1,000 tool calls has some 200 KB.  Members at the top level,
#: usage among them, are kept up to twice that, so that a long list before them cannot displace them.
MAX_NESTED_BYTES = 2 * MIB
#: Levels that are read; no shape is as deep, but lists can be nested in lists.
_MAX_LEVELS = 50
#: Bytes of a member's name that are compared; longer ones are skipped.
_MAX_NAME_BYTES = 1024
#: Bytes of a number or literal; longer ones are kept as null.
_MAX_SCALAR_BYTES = 64

_SPACE = re.compile(rb"[ \t\r\n]*")
#: Possessive: the pattern never goes back.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'


def _passed(levels: int) -> bytes:
    """Return the pattern of bytes without an unmatched bracket, and of containers that are `levels` deep."""
    containers = rb"|\{%b\}|\[%b\]" % ((_passed(levels - 1),) * 2) if levels else b""
    return rb'(?:[^"\[\]{}]++|' + _STRING + containers + rb")*+"


#: Everything up to a bracket that opens or closes a level.  Containers of three levels are passed in one match: the
#: log probabilities of a token are that deep, and a step of the loop for each bracket takes three times as long.
_LEVEL = re.compile(_passed(3), re.DOTALL)
_BRACKETS = re.compile(rb"\[++|\{++|\]++|\}++")
_NAME = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_SCALAR = re.compile(rb"[^,\]}\s]*")
_JSON_SCALAR = re.compile(rb"true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)

_QUOTE, _COMMA, _COLON, _BACKSLASH = b'",:\\'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_LIST, _CLOSE_LIST = b"{}[]"
_OPENING, _CLOSING = (_OPEN_OBJECT, _OPEN_LIST), (_CLOSE_OBJECT, _CLOSE_LIST)

#: A method, not bound to its object: a bound one would refer to the object that holds it, and keep it until the cycle
#: collector runs.
_State = Callable[["JsonSkimmer", bytes, int], "int | None"]


@dataclass(slots=True)
class _Level:
    """An open container that is read.  `silent`: only its text is counted.  `entries` have been written."""

    is_object: bool
    shape: Shape
    silent: bool
    entries: int = 0


class JsonSkimmer:
    """Reads the members of `shape` from one JSON object.

    `text_bytes` is the length in UTF-8 of the strings that COUNT names, as far as they have arrived.
    """

    __slots__ = (
        "_copy_start",
        "_copying",
        "_depth",
        "_levels",
        "_out",
        "_rest",
        "_shape",
        "_state",
        "_string_start",
        "_then",
        "text_bytes",
    )

    def __init__(self, shape: Mapping[str, Shape]) -> None:
        self.text_bytes = 0
        self._shape: Shape | None = shape
        self._levels: list[_Level] = []
        self._out = bytearray()
        self._rest = b""
        self._depth = 0
        self._copying = False
        self._copy_start = 0  # in _out
        self._string_start = 0  # in _out; -1 for a string that was dropped
        self._state: _State = JsonSkimmer._skip_root
        self._then: _State = JsonSkimmer._read_end

    def feed(self, data: bytes, max_steps: int | None = None) -> None:
        """Read the next bytes, split anywhere; the rest is left unread after `max_steps` steps."""
        buffer = self._rest + data
        at = 0
        for _ in repeat(None) if max_steps is None else repeat(None, max_steps):
            if at == len(buffer):
                break
            end = self._state(self, buffer, at)
            if end is None:
                break
            at = end
        self._rest = buffer[at:]

    @property
    def started(self) -> bool:
        """True if the bytes so far begin with an object."""
        return bool(self._out)

    def result(self) -> dict[str, object] | None:
        """Return the members of the shape that are present; None unless one complete object was read."""
        if self._state != JsonSkimmer._ignore or not self._out:
            return None
        value = decode_leniently(bytes(self._out))
        return value if isinstance(value, dict) else None

    # States.

    def _skip_root(self, buffer: bytes, at: int) -> int | None:
        start = buffer.find(b"{", at)
        # A byte order mark and white space may precede the object; anything else is no JSON object.
        before = buffer[at:] if start < 0 else buffer[at:start]
        if before.strip(b"\xef\xbb\xbf \t\r\n"):
            self._state = JsonSkimmer._ignore
            return len(buffer)
        if start < 0:
            return len(buffer)
        return self._open(is_object=True, at=start)

    def _ignore(self, buffer: bytes, at: int) -> int | None:
        return len(buffer)

    def _read_key(self, buffer: bytes, at: int) -> int | None:
        at = _skip_space(buffer, at)
        if at == len(buffer):
            return at
        if buffer[at] == _CLOSE_OBJECT:
            return self._close(at)
        if buffer[at] != _QUOTE:
            return at + 1
        name = _NAME.match(buffer, at)
        if name is None:
            if len(buffer) - at <= _MAX_NAME_BYTES:
                return None
            return self._begin_string(None, JsonSkimmer._read_colon, at)
        self._choose_member(name[1])
        self._state = JsonSkimmer._read_colon
        return name.end()

    def _read_colon(self, buffer: bytes, at: int) -> int | None:
        at = _skip_space(buffer, at)
        if at == len(buffer):
            return at
        self._state = JsonSkimmer._read_value
        return at + 1 if buffer[at] == _COLON else at

    def _read_value(self, buffer: bytes, at: int) -> int | None:
        at = _skip_space(buffer, at)
        if at == len(buffer):
            return at
        first = buffer[at]
        if first == _QUOTE:
            return self._begin_string(self._shape, JsonSkimmer._read_end, at)
        if first in _OPENING:
            return self._open_value(first, at)
        if first in _CLOSING:  # an empty list, or a member without its value
            if self._levels[-1].is_object:
                self._write(b"null")
            return self._close(at)
        self._state = JsonSkimmer._read_scalar
        return at

    def _read_string(self, buffer: bytes, at: int) -> int | None:
        end = find_string_end(buffer, at)
        if self._shape is COUNT:
            self.text_bytes += _count_text_bytes(buffer[at:end])
        elif self._copying:
            self._copy_text(buffer[at:end])
        if end == len(buffer):
            return end
        if buffer[end] != _QUOTE:
            return None if end == at else end  # half an escape
        if self._copying:
            self._out += b'"'
        self._copying = self._depth > 0 and self._copying
        self._state = self._then
        return end + 1

    def _read_scalar(self, buffer: bytes, at: int) -> int | None:
        match = _SCALAR.match(buffer, at)
        assert match is not None
        end = match.end()
        if end == len(buffer) and end - at <= _MAX_SCALAR_BYTES:
            return None
        is_json = end - at <= _MAX_SCALAR_BYTES and _JSON_SCALAR.fullmatch(match[0]) is not None
        self._write(match[0] if is_json and self._shape is KEEP else b"null")
        self._state = JsonSkimmer._read_end
        return max(end, at + 1)

    def _pass_nested(self, buffer: bytes, at: int) -> int | None:
        match = _LEVEL.match(buffer, at)
        assert match is not None
        end = match.end()
        if end == len(buffer):
            self._copy(buffer[at:end])
            return end
        mark = buffer[end]
        if mark == _QUOTE:  # a string that has not ended yet
            self._copy(buffer[at : end + 1])
            self._string_start = len(self._out)
            self._then, self._state = JsonSkimmer._pass_nested, JsonSkimmer._read_string
            return end + 1
        # A run of the same bracket is one step: a value can be nested 100,000 levels deep.
        run = _BRACKETS.match(buffer, end, len(buffer) if mark in _OPENING else end + self._depth)
        assert run is not None
        self._copy(buffer[at : run.end()])
        self._depth += len(run[0]) if mark in _OPENING else -len(run[0])
        if self._depth == 0:
            self._copying = False
            self._state = JsonSkimmer._read_end
        return run.end()

    def _read_end(self, buffer: bytes, at: int) -> int | None:
        at = _skip_space(buffer, at)
        if at == len(buffer):
            return at
        if buffer[at] in _CLOSING:
            return self._close(at)
        if buffer[at] == _COMMA:
            level = self._levels[-1]
            self._shape = None if level.is_object else level.shape
            self._state = JsonSkimmer._read_key if level.is_object else JsonSkimmer._read_value
        return at + 1

    # Transitions.

    def _choose_member(self, raw_name: bytes) -> None:
        name = raw_name.decode("utf-8", "replace")
        if "\\" in name:
            decoded = decode_leniently(b'"' + raw_name + b'"')
            name = decoded if isinstance(decoded, str) else name
        level = self._levels[-1]
        self._shape = level.shape.get(name) if isinstance(level.shape, Mapping) else None
        if self._shape is not None and self._shape is not COUNT and not self._is_full():
            self._separate(level)
            self._out += b'"' + raw_name + b'":'
        elif self._shape is not COUNT:
            self._shape = None

    def _open_value(self, mark: int, at: int) -> int:
        is_deep = len(self._levels) > _MAX_LEVELS
        descends = isinstance(self._shape, Mapping) and not is_deep and not self._is_full()
        if descends or (self._shape is COUNT and mark == _OPEN_LIST and not is_deep):
            return self._open(is_object=mark == _OPEN_OBJECT, at=at)
        self._copying = self._shape is KEEP and not self._is_full()
        if self._copying:
            self._begin_entry()
            self._copy_start = len(self._out)
            self._out.append(mark)
        else:
            self._write(b"null")
            self._shape = None
        self._depth = 1
        self._state = JsonSkimmer._pass_nested
        return at + 1

    def _open(self, *, is_object: bool, at: int) -> int:
        assert self._shape is not None
        silent = self._shape is COUNT
        if not silent:
            self._begin_entry()
            self._out += b"{" if is_object else b"["
        self._levels.append(_Level(is_object, self._shape, silent))
        self._state = JsonSkimmer._read_key if is_object else JsonSkimmer._read_value
        return at + 1

    def _close(self, at: int) -> int:
        level = self._levels.pop()
        if not level.silent:
            self._out += b"}" if level.is_object else b"]"
        self._state = JsonSkimmer._read_end if self._levels else JsonSkimmer._ignore
        return at + 1

    def _begin_string(self, shape: Shape | None, then: _State, at: int) -> int:
        self._shape = shape
        self._copying = shape is KEEP and not self._is_full()
        if self._copying:
            self._begin_entry()
            self._out += b'"'
            self._string_start = len(self._out)
        elif then == JsonSkimmer._read_end:
            self._write(b"null")
        self._then, self._state = then, JsonSkimmer._read_string
        return at + 1

    # Output.

    def _copy_text(self, text: bytes) -> None:
        """Append a part of a string, or drop the string if it is too long."""
        if self._string_start < 0:
            return
        if len(self._out) - self._string_start + len(text) > MAX_STRING_BYTES:
            del self._out[self._string_start :]
            self._string_start = -1
        else:
            self._out += text

    def _copy(self, data: bytes) -> None:
        """Append a part of a nested value, or replace the value by null if it is too long."""
        if not self._copying:
            return
        self._out += data
        if len(self._out) - self._copy_start > MAX_NESTED_BYTES:
            self._out[self._copy_start :] = b"null"
            self._copying = False

    def _write(self, value: bytes) -> None:
        """Append a value in the place of the one that is read, unless that one is only counted or skipped."""
        if self._shape is None or self._shape is COUNT:
            return
        # A full list loses its last entries; a member has its name written already.
        if self._levels[-1].is_object or not self._is_full():
            self._begin_entry()
            self._out += value

    def _begin_entry(self) -> None:
        """Append the comma before an entry of a list; names of members are preceded by theirs already."""
        if self._levels and not self._levels[-1].is_object:
            self._separate(self._levels[-1])

    def _separate(self, level: _Level) -> None:
        if level.entries:
            self._out += b","
        level.entries += 1

    def _is_full(self) -> bool:
        return len(self._out) > (2 * MAX_NESTED_BYTES if len(self._levels) <= 1 else MAX_NESTED_BYTES)


def _skip_space(buffer: bytes, at: int) -> int:
    match = _SPACE.match(buffer, at)
    assert match is not None
    return match.end()


def _count_text_bytes(text: bytes) -> int:
    """Return the bytes in UTF-8 of JSON text; an escape of a code point counts as three."""
    if _BACKSLASH not in text:
        return len(text)
    escapes = _ESCAPE.findall(text)
    return len(text) - len(escapes) - 2 * escapes.count(b"u")
