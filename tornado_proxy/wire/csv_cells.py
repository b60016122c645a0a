"""CSV that a spreadsheet shows and never runs.  Names in reports come from clients, who may write what they like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from csv import writer
from typing import Protocol

#: First characters that make a spreadsheet take a cell for a formula, full-width forms too (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Writable(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object:
        """Take text."""


def safe_cell(text: str) -> str:
    """`text`, with an apostrophe before it where a spreadsheet could take it for a formula."""
    return "'" + text if text.startswith(_FORMULA_STARTS) or text.lstrip().startswith(_FORMULA_STARTS) else text


def write_rows(out: Writable, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A head line and the rows, as RFC 4180 has it; None is an empty cell, text is safe, numbers stay numbers.

    A decimal that is already text is written as it is when it is given as Plain.
    """
    table = writer(out)
    table.writerow(columns)
    table.writerows([_cell(value) for value in row] for row in rows)


class Plain(str):
    """Text of ours that is a number or a time, and no formula whatever it begins with."""

    __slots__ = ()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return safe_cell(value) if isinstance(value, str) and not isinstance(value, Plain) else value
