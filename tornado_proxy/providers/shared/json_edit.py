"""Edits a member of a JSON request body without re-encoding it: every other byte is unchanged."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.json_body import read_raw

#: Occurrences of a member's text that edit_member() tries.  Each costs a pass over the body, so a body full of
#: look-alikes would take a minute of CPU without a limit.
MAX_EDIT_ATTEMPTS = 8

#: Occurrences of a member's name that edit_member() looks at, with any value.  They cost a microsecond each, and no
#: ordinary body has more than a few.
MAX_NAME_OCCURRENCES = 1000

#: The start of the object; group 1 is its end if the object is empty.
_OPENING = re.compile(rb"\{(?=[ \t\r\n]*(\})?)")


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
