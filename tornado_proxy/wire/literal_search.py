"""Tells if a text holds one of several literals, mostly at the speed of memchr(3).

CPython searches one character with memchr(3), some fifty times as fast as a longer text.  So each literal is searched
by one of its characters that is rare in JSON and English, and compared around each place of that character:

    literal   sk-proj-7Qx1...      rare character Q, at offset 9
    text      ...Q...Q...          two comparisons, if the text is long and the literal is not in it

Of a short text that is not worth its Python calls: search it for each of `literals` with find().  Not with `in`: for
bytes that asks first if the literal is a number, and takes an exception to learn that it is none, which costs as much
as 1 KB of the search.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

TextT = TypeVar("TextT", str, bytes)

#: Characters from rare to common, in JSON with English text and identifiers.  Others are rarer.
_BY_FREQUENCY = "QZXJYKVUWHGFBLNPMRDOCSAEITqzjxkvwybpgfmhu7964853201dlcrnsiotae_-"

#: Literals that are searched one by one; of more, only their first characters are.
_MAX_LITERALS = 8

#: Lengths of those first characters: the longest one with few different starts is taken, or the last one.
_START_LENGTHS = (16, 12, 8, 3)

#: Characters of a text that is searched for whole literals: 1 us for a response of 1 KB.
MAX_SHORT_TEXT = 4096

#: Places of a rare character that are compared before the rest of the text is searched for the whole literal.
_MAX_PLACES = 16


class _Needle(NamedTuple, Generic[TextT]):
    literal: TextT
    rare: TextT
    offset: int


class LiteralSearch(Generic[TextT]):
    """Searches texts for any of `literals`, of which only the beginnings are kept if they are many.  Immutable."""

    __slots__ = ("_needles", "literals")

    def __init__(self, literals: Iterable[TextT]) -> None:
        self.literals: tuple[TextT, ...] = tuple(_shorten(sorted(set(literals))))
        self._needles: list[_Needle[TextT]] = [_make_needle(literal) for literal in self.literals]

    def may_be_in(self, text: TextT) -> bool:
        """Return False if `text` certainly holds none of the literals."""
        return any(_is_in(needle, text) for needle in self._needles)


def _is_in(needle: _Needle[TextT], text: TextT) -> bool:
    literal, rare, offset = needle
    at = text.find(rare, offset)
    for _ in range(_MAX_PLACES):
        if at < 0:
            return False
        if text.startswith(literal, at - offset):
            return True
        at = text.find(rare, at + 1)
    return text.find(literal, max(at - offset, 0)) >= 0


def _shorten(literals: list[TextT]) -> list[TextT]:
    """Return the literals, or starts of them if they are many."""
    starts = literals
    for length in _START_LENGTHS:
        if len(starts) <= _MAX_LITERALS:
            break
        starts = sorted({literal[:length] for literal in literals})
    return starts


def _make_needle(literal: TextT) -> _Needle[TextT]:
    offset = min(range(len(literal)), key=lambda at: _rank(literal[at : at + 1]))
    return _Needle(literal, literal[offset : offset + 1], offset)


def _rank(character: str | bytes) -> int:
    return _BY_FREQUENCY.find(character if isinstance(character, str) else character.decode("latin-1"))
