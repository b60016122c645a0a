"""Tells requests whose whole input is text in the body from those with images, files or stored content."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: A letter, digit or sign written as an escape.  JSON encoders write none of them so, but for <, > and & in Go; a
#: member's name that is written so would not be found.
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")


def is_text_only(body: bytes, opaque: Iterable[bytes]) -> bool:
    """Return True if `body` has none of the members and types `opaque`, whose tokens are not in the body as text.

    Quotation marks inside JSON text are escaped, so a name in quotation marks is a member or a value, never a part of a
    prompt.  A value that happens to be such a name makes the request seem larger than it is, never smaller.
    """
    for name in opaque:  # a loop: any() takes a function call for each name
        if b'"%s"' % name in body:
            return False
    return _ESCAPED_ASCII.search(body) is None
