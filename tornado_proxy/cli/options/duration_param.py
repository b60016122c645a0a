"""Durations on a command line."""

from __future__ import annotations

import re
from datetime import timedelta

import click

_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

#: The longest duration, a hundred years.  A longer one is a typing error.
_MAX_DURATION = timedelta(days=36500)


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Return `90s`, `15m`, `1h` or `30d` as a timedelta, `never` and a missing option as None."""
    if value is None or value == "never":
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", value)
    if match is None or int(match[1]) * _UNITS[match[2]] > _MAX_DURATION:
        raise click.BadParameter(f"{value!r} is not a duration such as 90s, 15m, 1h or 30d, or never", ctx, param)
    return int(match[1]) * _UNITS[match[2]]
