"""Escapes characters that a terminal or an editor obeys instead of showing.

Names of models and participants come from clients and providers.  Printed raw, ESC and the C1 controls move the cursor
or set the title of a terminal (ECMA-48), and bidirectional controls reorder the text around them (CVE-2021-42574).
"""

from __future__ import annotations

import re

#: Characters above ASCII: the C1 controls, line separators, marks and overrides of the direction, invisible spaces.
_INVISIBLE = "\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"

_OBEYED = re.compile(f"[\0-\x08\x0b-\x1f{_INVISIBLE}\ud800-\udfff]")
_OBEYED_IN_JSON = re.compile(f"[{_INVISIBLE}]")


def escape_controls(text: str) -> str:
    r"""Return `text` with each such character written as `\u202e`; line feeds and tabs stay."""
    # Most names are printable, and the check is ten times as fast as a substitution.
    return text if text.isprintable() else _OBEYED.sub(_escape, text)


def escape_json_controls(json_text: str) -> str:
    """Return JSON with escapes for such characters.  JSON has escapes for ASCII's own already (RFC 8259 section 7)."""
    # They occur inside strings only, where the escape means the same character.
    return _OBEYED_IN_JSON.sub(_escape, json_text)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
