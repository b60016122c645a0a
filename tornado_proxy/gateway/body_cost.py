"""Tells from the bytes of a body whether the event loop can read it without delaying others.

A JSON parser passes over a long string at 3 GB a second, but takes up to a microsecond for each object, list, number
or short string, and tens of nanoseconds for each escape.  So the length alone says little: 1 MB of text or of a base64
image takes a third of a millisecond, 1 MB of tools takes 40.
"""

from __future__ import annotations

import re

#: Bytes of a body that the event loop reads unless it holds many values: about a millisecond for text.
MAX_BYTES_READ_ON_LOOP = 64 * 1024

#: Objects and lists of such a body: each takes about a microsecond, and 64 KiB of empty ones took 25 ms.
MAX_VALUES_READ_ON_LOOP = 6000

#: Bytes of a sparse body: about a millisecond.
MAX_SPARSE_BYTES = 1280 * 1024

#: Strings of a sparse body, and escapes in them.
MAX_STRINGS, MAX_ESCAPES = 500, 500

#: Bytes outside of the strings of a sparse body.  Each value takes at least two.
MAX_BYTES_OUTSIDE = 2 * MAX_VALUES_READ_ON_LOOP

#: The start of a JSON object.  A form, for example, is parsed byte by byte where it resembles a boundary.
_JSON_OBJECT = re.compile(rb"[ \t\r\n]{0,100}\{")

_QUOTE, _BACKSLASH = b'"', b"\\"


def is_quick(body: bytes) -> bool:
    """Return True if `body` is small and has few values."""
    if len(body) > MAX_BYTES_READ_ON_LOOP:
        return False
    # Each value takes at least two bytes.
    return len(body) <= 2 * MAX_VALUES_READ_ON_LOOP or (body.count(b"{") + body.count(b"[") <= MAX_VALUES_READ_ON_LOOP)


def is_sparse(body: bytes) -> bool:
    """Return True if `body` is a JSON object of at most MAX_SPARSE_BYTES, nearly all of them in a few long strings.

    To find a single byte takes 20 us for each MB.
    """
    if len(body) > MAX_SPARSE_BYTES or _JSON_OBJECT.match(body) is None or not _has_few_escapes(body):
        return False
    outside_bytes = end = 0
    for _ in range(MAX_STRINGS):
        start = body.find(_QUOTE, end)
        if start < 0:
            return outside_bytes + len(body) - end <= MAX_BYTES_OUTSIDE
        outside_bytes += start - end
        end = _find_end(body, start + 1)
        if not end or outside_bytes > MAX_BYTES_OUTSIDE:
            return False
    return False


def _has_few_escapes(body: bytes) -> bool:
    """Return True if `body` has at most MAX_ESCAPES, none of them by number: the search for names is slow on these."""
    at = body.find(_BACKSLASH)
    for _ in range(MAX_ESCAPES):
        if at < 0:
            return True
        if body[at + 1 : at + 2] == b"u":
            return False
        at = body.find(_BACKSLASH, at + 2)
    return at < 0


def _find_end(body: bytes, start: int) -> int:
    """Return the position after the quotation mark that ends the string from `start`, 0 if none does."""
    end = body.find(_QUOTE, start)
    while end >= 0 and _is_escaped(body, end):
        end = body.find(_QUOTE, end + 1)
    return end + 1


def _is_escaped(body: bytes, at: int) -> bool:
    """Return True if the byte at `at` follows an odd number of backslashes."""
    before = at
    while body[before - 1 : before] == _BACKSLASH:
        before -= 1
    return (at - before) % 2 == 1
