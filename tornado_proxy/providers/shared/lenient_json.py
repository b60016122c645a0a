r"""Decodes a provider's JSON even if it is not strictly valid.

RFC 8259 section 8.2 leaves open what a parser does with an escape that is no character, such as a lone `\ud83d`; some
hosts write `NaN`, `-Infinity` or raw control characters.  msgspec rejects the whole text for any of them.  A response
that has been paid for must still state its usage, so here the part is replaced and the rest is read.
"""

from __future__ import annotations

import json
import re

#: An escape: a surrogate pair, a lone surrogate in group 1, or any other.  Alternatives are tried in this order, so
#: that an escaped backslash before `ud83d` is not taken for one.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
#: The character that replaces one that cannot be read (Unicode 15, section 23.8).
_REPLACEMENT = rb"\ufffd"


def decode_leniently(data: bytes) -> object:
    """Return the value in `data`; None if it is not JSON, or nested too deeply.

    Lone surrogates and invalid UTF-8 become U+FFFD; NaN and the infinities become None, which counts as missing.
    """
    text = _ESCAPE.sub(lambda escape: escape[0] if escape[1] is None else _REPLACEMENT, data)
    try:
        return json.loads(text.decode("utf-8-sig", "replace"), strict=False, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
