"""Texts of the dashboard: amounts, durations, marks, and names that providers and clients have chosen.

Textual reads markup in plain strings, so every text of others is shown as rich Text or with markup turned off, and
without control characters.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from rich.cells import cell_len, set_cell_size

from tornado_proxy.wire.visible_text import escape_controls

#: The decimals of an amount in a table.
_MICRO = Decimal("0.000001")

#: An amount that six decimals would show as zero.
_TINY = "<$0.000001"

#: Marks of a cost by the basis of its record: an estimate, and a cost that is not known yet.
_MARKS = {"estimated": "~", "inferred": "~", "unsettled": "!", "pending": "!"}

_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
_SECOND_MS = 1000

#: From this number on, tokens are shown in millions.
_MANY_TOKENS = 100_000_000


def show_amount(amount: Decimal | None) -> str:
    """Return an amount with six decimals, "-" if it is not known."""
    if amount is None:
        return "-"
    rounded = amount.quantize(_MICRO)
    return _TINY if amount and not rounded else f"${rounded:f}"


def show_exact(amount: Decimal | None) -> str:
    """Return an amount or price with all its decimals, at least six; "-" if it is not known."""
    if amount is None:
        return "-"
    exponent = amount.normalize().as_tuple().exponent
    assert isinstance(exponent, int), "an amount is finite"
    return f"${amount.normalize() if exponent < -6 else amount.quantize(_MICRO):f}"


def show_mark(basis: str) -> str:
    """Return "~" for an estimate, "!" for a cost that is not known yet, else ""."""
    return _MARKS.get(basis, "")


def show_count(count: int | None) -> str:
    """Return a number of tokens or requests, "-" if it is not known."""
    if count is None:
        return "-"
    return f"{count / 1_000_000:,.1f}M" if count >= _MANY_TOKENS else f"{count:,}"


def show_duration(milliseconds: int | None) -> str:
    """Return a duration in at most seven characters, such as 67ms, 1.20s, 3m07s and 2h05m."""
    if milliseconds is None:
        return "-"
    if milliseconds < _SECOND_MS:
        return f"{milliseconds}ms"
    if milliseconds < _MINUTE_MS:
        return f"{milliseconds / _SECOND_MS:.2f}s"
    if milliseconds < _HOUR_MS:
        return f"{milliseconds // _MINUTE_MS}m{milliseconds % _MINUTE_MS // _SECOND_MS:02}s"
    return f"{milliseconds // _HOUR_MS}h{milliseconds % _HOUR_MS // _MINUTE_MS:02}m"


def show_age(milliseconds: int) -> str:
    """Return the age of a request in tenths of a second, from a minute on as show_duration()."""
    return f"{milliseconds / _SECOND_MS:.1f}s" if milliseconds < _MINUTE_MS else show_duration(milliseconds)


def show_time(at: datetime) -> str:
    """Return the time of day in the person's time zone."""
    return f"{at.astimezone():%H:%M:%S}"


def show_line(text: str) -> str:
    """Return text of others on one line, without characters that a terminal obeys."""
    return escape_controls(text).replace("\n", " ").replace("\t", " ")


def show_block(text: str) -> str:
    """Return text of others with its lines indented, so that none looks like one of ours, and otherwise as one line."""
    return "\n".join(f"  {line}" for line in map(show_line, text.split("\n")))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` in exactly `width` cells: padded, or cut with an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)
