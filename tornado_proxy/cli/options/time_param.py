"""Points in time on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from tornado_proxy.ledger.rows import format_time

_RELATIVE = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class TimeParam(click.ParamType[str]):
    """A date, an RFC 3339 time, or a duration before now such as 24h or 7d."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time in the text form of the ledger."""
        relative = _RELATIVE.fullmatch(value)
        try:
            if relative:
                return format_time(datetime.now(UTC) - timedelta(**{_UNITS[relative[2]]: int(relative[1])}))
            time = datetime.fromisoformat(value)
            # UTC, as in the ledger: with a local time zone the same command would select other records elsewhere.
            return format_time(time if time.tzinfo else time.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a date, a time or a duration such as 24h", param, ctx)


def check_times(since: str | None, until: str | None) -> None:
    """Check that there is time between two options, in the text form of the ledger.

    Raises:
        click.UsageError: no record can be between them.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError(f"--since {since} is not before --until {until}; correct one of them")
