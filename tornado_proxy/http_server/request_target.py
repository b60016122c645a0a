"""The target of a request line."""

from __future__ import annotations

import re

#: Scheme and authority of a target in absolute form (RFC 9112 section 3.2.2).
_AUTHORITY = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


def make_origin_form(target: str) -> str:
    """Return the path and query of a target in absolute form.  The authority is not used: there is one site here."""
    path = _AUTHORITY.sub("", target, count=1)
    if path == target and path:
        return target
    return path if path.startswith("/") else f"/{path}"
