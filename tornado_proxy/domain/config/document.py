"""A configuration file as parsed values that remember their line numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tornado_proxy.domain.config.fault import Fault

#: Keys and indexes from the top of a document to one value: ("models", "gpt-5.4", "rates", 0).
Path = tuple[str | int, ...]


# Compared by identity, so that results for a document can be kept.
@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One parsed configuration file.

    Attributes:
        file: The path of the file, as faults show it.
        content: A tree of dict, list, str, int, Decimal, bool and None; a number with a decimal point is a Decimal.
        lines: The line of each value's key or item, counted from 1, by the path of the value.
    """

    file: str
    content: object
    lines: Mapping[Path, int] = field(default_factory=dict)

    def fault(self, path: Path, rule: str) -> Fault:
        """Return a fault at `path`.

        A missing key has no line of its own, so the line is that of the nearest enclosing value that has one.
        """
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return Fault(self.file, line, format_path(path), rule)
        return Fault(self.file, 0, format_path(path), rule)


def format_path(path: Path) -> str:
    """Return `path` in dotted form: `("models", 3, "input")` is `models[3].input`; a key with a dot is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # Names of models contain dots, which would look like nested keys.
            key = f'"{part}"' if "." in part else part
            text += f".{key}" if text else key
    return text


def read_section(content: object, name: str) -> Mapping[str, object]:
    """Return the mapping at `name` of `content`.

    Returns an empty mapping if the section is missing or is not a mapping: documents are read even if they have
    faults, so that all faults are reported at once.
    """
    section = content.get(name) if isinstance(content, dict) else None
    return section if isinstance(section, dict) else {}


def list_children(value: object) -> Iterable[tuple[str | int, object]]:
    """Return the (key, member) pairs of a mapping or the (index, item) pairs of a list; none for other values."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()
