"""Amounts as text for people: exact, never with an exponent, and with equally many decimals in a column."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from tornado_proxy.ledger.reports.records_query import EXACT
from tornado_proxy.ledger.rows import format_decimal

#: Decimals of an amount, unless it needs more to be shown exactly.
MIN_DECIMALS = 2


def count_decimals(amounts: Iterable[Decimal]) -> int:
    """Return the number of decimals that show each of the amounts exactly."""
    parts = (format_decimal(amount).partition(".")[2].rstrip("0") for amount in amounts)
    return max([MIN_DECIMALS, *map(len, parts)])


def show_amount(amount: Decimal, decimals: int | None = None) -> str:
    """Return an exact amount with separators and `decimals`, by default as many as it needs; zero has none."""
    if not amount:
        return "0"
    places = count_decimals([amount]) if decimals is None else decimals
    return f"{amount:,.{places}f}"


def show_change(amount: Decimal, decimals: int | None = None) -> str:
    """Return a difference with its sign."""
    sign = "+" if amount > 0 else "\u2212" if amount < 0 else ""
    return f"{sign}{show_amount(abs(amount), decimals)}"


def show_exact(amount: Decimal) -> str:
    """Return an amount for programs: its digits without separators and final zeros."""
    text = format_decimal(amount)
    return text.rstrip("0").rstrip(".") if "." in text else text


def subtract(amount: Decimal, other: Decimal) -> Decimal:
    """Return an exact difference."""
    return EXACT.subtract(amount, other)


def show_percentage(part: Decimal, whole: Decimal) -> str:
    """Return a part in percent of a whole, rounded for reading; "" if there is none."""
    return f"{part / whole * 100:.1f} %" if whole else ""
