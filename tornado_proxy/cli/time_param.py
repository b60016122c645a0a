"""Moments on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from tornado_proxy.ledger.rows import format_time

_RELATIVE = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[str]):
    """A date, an RFC 3339 time, or a span back from now such as 24h or 7d."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The moment as the ledger writes times."""
        relative = _RELATIVE.fullmatch(value)
        try:
            if relative:
                return format_time(datetime.now(UTC) - timedelta(**{_UNITS[relative[2]]: int(relative[1])}))
            moment = datetime.fromisoformat(value)
            return format_time(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a date, a time or a span such as 24h", param, ctx)
