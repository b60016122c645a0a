"""CSV whose cells a spreadsheet never runs as formulas, and whose text a terminal shows and does not obey.

Reports hold names that clients choose, and a spreadsheet runs a cell that starts with `=` (OWASP, "CSV Injection").
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from csv import writer
from typing import Protocol

from tornado_proxy.wire.visible_text import escape_controls

#: First characters of a formula; the last four are the full-width forms, which spreadsheets take as well.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Writable(Protocol):
    """A text stream that can be written to."""

    def write(self, text: str, /) -> object:
        """Write `text`."""


def safe_cell(text: str) -> str:
    """Return `text`, with an apostrophe in front if a spreadsheet could take it for a formula."""
    return "'" + text if text.startswith(_FORMULA_STARTS) or text.lstrip().startswith(_FORMULA_STARTS) else text


def write_rows(out: Writable, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a header line and the rows in the format of RFC 4180.

    None becomes an empty cell.  Text is made safe and its control characters are escaped, except TrustedText; numbers
    are written unchanged.
    """
    table = writer(out)
    table.writerow(columns)
    table.writerows([_cell(value) for value in row] for row in rows)


def write_members(
    out: Writable, columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, trusted: Container[str]
) -> None:
    """Write a header line and the members `columns` of each row, lists and objects as JSON.

    Text of the columns `trusted` is the program's own, and is written unchanged.
    """
    write_rows(out, columns, ([_member_cell(row[name], trusted=name in trusted) for name in columns] for row in rows))


def _member_cell(value: object, *, trusted: bool) -> object:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return TrustedText(value) if trusted and isinstance(value, str) else value


class TrustedText(str):
    """Text of the program itself, such as a negative decimal or a time, that is written unchanged."""

    __slots__ = ()


def _cell(value: object) -> object:
    if value is None:
        return ""
    if not isinstance(value, str) or isinstance(value, TrustedText):
        return value
    return safe_cell(escape_controls(value))
