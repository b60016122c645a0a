"""Cuts the long texts out of a large JSON body, so that only the rest has to be decoded and searched.

    body      {"model":"gpt-5.4","messages":[{"role":"user","content":"Summarize this report: ... 1 MB ..."}]}
    outline   {"model":"gpt-5.4","messages":[{"role":"user","content":"Summarize this report: "}]}

The texts of prompts and the data of images are nearly all of a large body, and no parser reads them.  A JSON parser
passes over 1 MB of text in a third of a millisecond and a search for a name in three; to find the quotation marks that
end the texts takes 20 us.  An endpoint lists the members whose text may be cut (HttpEndpoint.content_members).

The outline has the same structure and the same names as the body, and each text that was cut still begins as before.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from tornado_proxy.wire.splice import Splice

#: Bytes of the smallest body of which an outline is worth its time, and of the smallest text that is cut.
MIN_BODY_BYTES, MIN_TEXT_BYTES = 8 * 1024, 256

#: Bytes of the largest body of which an outline is made: the search for quotation marks takes 20 us for each MiB.
MAX_BODY_BYTES = 16 * 1024 * 1024

#: Quotation marks of a body, escaped ones too: each takes 0.2 us.  A body with more of them has few long texts.
MAX_QUOTES, MIN_BYTES_PER_QUOTE = 2000, 256

#: Backslashes before a quotation mark that are counted.  A body with as many has no outline.
MAX_BACKSLASHES = 64

#: The start of an object.
_OBJECT = re.compile(rb"[ \t\r\n]{0,100}\{")

#: Between the name and the value of a member.
_COLON = re.compile(rb"[ \t\r\n]{0,100}:[ \t\r\n]{0,100}")

#: The part of a text that is left: a few characters without escapes.  It is not empty, as the text is not.
_BEGINNING = re.compile(rb"[ !#-\[\]-~]{1,40}")

_QUOTE, _BACKSLASH = b'"', b"\\"


@dataclass(frozen=True, slots=True)
class Outline:
    """The rest of a body.

    Attributes:
        text: A JSON object if the body is one.
        cuts: The place of each text in `text`, and the bytes by which it is shorter than in the body.
    """

    text: bytes
    cuts: tuple[tuple[int, int], ...]

    @property
    def cut_bytes(self) -> int:
        """The number of bytes that the body has more."""
        return sum(size for _, size in self.cuts)

    def find_in_body(self, splice: Splice) -> Splice | None:
        """Return the splice of the body for one of `text`, None if it concerns a text that was cut."""
        if any(splice.start < place <= splice.end for place, _ in self.cuts):
            return None
        before = sum(size for place, size in self.cuts if place <= splice.start)
        return Splice(splice.start + before, splice.end + before, splice.text)


def make_outline(body: bytes, names: Collection[bytes]) -> Outline | None:
    """Return the outline of a JSON object without long texts in the members `names`.

    Return None if `body` is no object, is too small or too large, or has too many strings.
    """
    if not MIN_BODY_BYTES <= len(body) <= MAX_BODY_BYTES or _OBJECT.match(body) is None:
        return None
    strings = _find_strings(body)
    if strings is None:
        return None
    pieces: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    kept = length = 0
    name_start = name_end = 0
    for start, end in strings:
        if end - start > MIN_TEXT_BYTES and _is_value(body, name_end + 1, start) and body[name_start:name_end] in names:
            beginning = _BEGINNING.match(body, start, end)
            text = b"x" if beginning is None else beginning[0]
            pieces += (body[kept:start], text)
            length += start - kept + len(text)
            cuts.append((length, end - start - len(text)))
            kept = end
        name_start, name_end = start, end
    pieces.append(body[kept:])
    return Outline(b"".join(pieces), tuple(cuts))


def _is_value(body: bytes, start: int, end: int) -> bool:
    """Return True if the bytes between two strings, up to the quotation mark of the second, are a colon."""
    return _COLON.fullmatch(body, start, end - 1) is not None


def _find_strings(body: bytes) -> list[tuple[int, int]] | None:
    """Return where the content of each string of `body` starts and ends; None if a string does not end."""
    strings: list[tuple[int, int]] = []
    start = end = -1
    for _ in range(min(MAX_QUOTES, len(body) // MIN_BYTES_PER_QUOTE)):
        mark = body.find(_QUOTE, end + 1)
        if start < 0:
            if mark < 0:
                return strings
            start = mark + 1
        elif mark < 0:
            return None
        else:
            backslashes = _count_backslashes(body, mark)
            if backslashes == MAX_BACKSLASHES:
                return None
            if backslashes % 2 == 0:
                strings.append((start, mark))
                start = -1
        end = mark
    return None


def _count_backslashes(body: bytes, end: int) -> int:
    """Return the number of backslashes before the byte at `end`, at most MAX_BACKSLASHES."""
    if body[end - 1 : end] != _BACKSLASH:
        return 0
    before = body[max(0, end - MAX_BACKSLASHES) : end]
    return len(before) - len(before.rstrip(_BACKSLASH))
