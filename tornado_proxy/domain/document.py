"""A configuration file as parsed values that remember the lines they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tornado_proxy.domain.errors import Fault

#: Keys and indexes from the top of a document to one value: ("models", "gpt-5.4", "rates", 0).
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """`content` holds dict, list, str, int, Decimal, bool and None only; numbers with a point are Decimal.

    `lines` maps the path of each value to the line of its key or item, counted from 1.
    """

    file: str
    content: object
    lines: Mapping[Path, int] = field(default_factory=dict)

    def fault(self, path: Path, rule: str) -> Fault:
        """A fault at `path`; the line is that of the nearest enclosing value that has one."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return Fault(self.file, line, format_path(path), rule)
        return Fault(self.file, 0, format_path(path), rule)


def format_path(path: Path) -> str:
    """`("models", 3, "input")` as `models[3].input`; keys that hold a dot are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = f'"{part}"' if "." in part else part
            text += f".{key}" if text else key
    return text
