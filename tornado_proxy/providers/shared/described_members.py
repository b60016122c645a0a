"""Reads the members of a request body that say who and what the request is made for (domain/attribution.py).

They never refuse a request: a value of another type, or one that is too long, says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: Characters of a value.  Codex's turn metadata has some 1,000, and more with several workspaces.
_MAX_CHARACTERS = 16 * 1024

#: Members of an object that are read.
_MAX_ENTRIES = 32


def read_described(members: Mapping[str, Any], names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the texts of the members `names`, and those in an object under the name `holder.member`.

    `members` are those that read_members() has read, `names` among them.
    """
    return tuple([pair for name in names if name in members for pair in _read_texts(name, members[name])])


def _read_texts(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        entries = list(value.items())[:_MAX_ENTRIES]
        return [(f"{name}.{key}", text) for key, text in entries if _is_short_text(text)]
    return [(name, value)] if isinstance(value, str) and _is_short_text(value) else []


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_CHARACTERS
