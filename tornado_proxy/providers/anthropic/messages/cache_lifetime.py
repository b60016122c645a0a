"""Finds the longest cache lifetime that a request names, for responses that do not state the lifetime of every write.

`cache_control` can be at the top level and at every block of tools, system and messages.  Its text is searched instead
of decoding all blocks: a quotation mark inside a JSON string is escaped, so the search finds members only.
Source: Anthropic guide, "Prompt caching".
"""

from __future__ import annotations

import re

from tornado_proxy.providers.shared.json_values import as_text, decode_object

_MEMBER = b'"cache_control"'

#: The value of the member.  It has two members, so a longer text is none.
_VALUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(\{[^{}]{0,400}\})")


def find_cache_ttl(body: bytes) -> str | None:
    """Return "1h" if a breakpoint of the request asks for it, "5m" if all have the default, None without any."""
    found = None
    at = body.find(_MEMBER)
    while at >= 0:
        end = at + len(_MEMBER)
        value = _VALUE.match(body, end)
        if value is not None and body[at - 1 : at] != b"\\":
            if as_text((decode_object(value[1]) or {}).get("ttl")) == "1h":
                # Hours come before minutes in a prompt, and the unstated rest can be of either: take the dearer.
                return "1h"
            found = "5m"
        at = body.find(_MEMBER, end)
    return found
