"""Writes times, amounts and numbers of things as text, the same in records, log lines, JSON documents and pages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

_encode = msgspec.json.Encoder().encode

#: Characters of the JSON text of a time with microseconds: "2026-11-28T09:00:00.123456Z" and its quotation marks.
_LENGTH = 29


def format_time(time: datetime) -> str:
    """Return an RFC 3339 time in UTC, with milliseconds and Z: text that sorts as time does."""
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    # A third of the time of isoformat() or of a % format; it runs five times for each request.
    text = _encode(time).decode()
    return f"{text[1:24]}Z" if len(text) == _LENGTH else f"{text[1:20]}.000Z"


def format_decimal(value: Decimal) -> str:
    """Return the digits of an amount without an exponent."""
    text = str(value)  # several times faster than formatting, and plain digits nearly always
    return text if "E" not in text else f"{value:f}"


def format_sum(value: Decimal) -> str:
    """Return the digits of a sum without trailing zeros.

    Their number depends on how it was added up: from records, or from sums by hour and day.
    """
    text = format_decimal(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def count_noun(number: int, noun: str) -> str:
    """Return a number and its noun: "1 day", "2 days"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
