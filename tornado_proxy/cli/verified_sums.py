"""Prints how the sums by hour and day differ from the records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from itertools import islice

import click

from tornado_proxy.cli.tables import replace_unprintable
from tornado_proxy.domain.text import count_noun, format_decimal
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.reports.records_query import EXACT
from tornado_proxy.ledger.sums.verification import Difference, Figure, VerifiedDay, count_others, verify_sums

#: Differences that are printed; all are counted.
MAX_DIFFERENCES = 100


@dataclass(slots=True)
class _Result:
    """The days that were verified so far.

    number: of all differences, of which `differences` has the first ones.
    """

    days: int = 0
    records: int = 0
    total: Decimal = Decimal(0)
    number: int = 0
    differing_days: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def add(self, day: VerifiedDay) -> list[Difference]:
        """Add a day; return those of its differences that are printed."""
        first = list(islice(day.differences, MAX_DIFFERENCES - len(self.differences)))
        number = len(first) + sum(1 for _ in day.differences)
        self.days += 1
        self.records += day.records
        self.total = EXACT.add(self.total, day.total)
        self.number += number
        if number:
            self.differing_days.append(day.day)
        self.differences += first
        return first


def print_verified(backend: Backend, days: tuple[str, str], output_format: str) -> bool:
    """Verify the sums of some days; print the first differences, the sum of all days, and the remedy.

    Returns:
        True if there are no differences.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    result = _Result()
    for day in verify_sums(backend, *days):
        for difference in result.add(day):
            if output_format == "text":
                click.echo(_format_line(difference))
    others = count_others(backend)
    if output_format == "json":
        click.echo(json.dumps(_make_document(result, others), indent=2))
    else:
        _print_end(result, others)
    return not result.number


def _print_end(result: _Result, others: int) -> None:
    left = result.number - len(result.differences)
    if left:
        click.echo(f"... and {left} more")
    of_days = f"{count_noun(result.days, 'day')}, {count_noun(result.records, 'record')}, {result.total:f} USD"
    if result.number:
        found = f"{result.number} sum differs" if result.number == 1 else f"{result.number} sums differ"
        click.echo(f"{found} from the records of {of_days}; run {_name_remedy(result)}", err=True)
    else:
        click.echo(f"ok: {of_days}")
    if others:
        are = "record is" if others == 1 else "records are"
        click.echo(f"{others} other {are} pending or new, and not in the sums yet; reports add them")


def _name_remedy(result: _Result) -> str:
    """Return the command that makes the sums of the differing days again."""
    after = date.fromisoformat(result.differing_days[-1]) + timedelta(days=1)
    return f"tornado-proxy ledger rollup --rebuild --since {result.differing_days[0]} --until {after}"


def _format_line(difference: Difference) -> str:
    key = ", ".join(f"{name}={value}" for name, value in difference.key.items())
    figures = "; ".join(_format_figure(name, *pair) for name, pair in difference.figures.items())
    place = " ".join(part for part in (difference.start, difference.table, difference.span) if part)
    return replace_unprintable(f"{place}: {key}: {figures}")


def _format_figure(name: str, found: Figure, expected: Figure) -> str:
    text = f"{name} {_format(found)} in the sum, {_format(expected)} in the records"
    difference = _subtract(found, expected)
    return text if difference is None else f"{text}, difference {difference}"


def _format(figure: Figure) -> str:
    return format_decimal(figure) if isinstance(figure, Decimal) else "-" if figure is None else str(figure)


def _subtract(found: Figure, expected: Figure) -> str | None:
    """Return the sum's figure less that of the records; None for texts."""
    if isinstance(found, str | None) or isinstance(expected, str | None):
        return None
    return format_decimal(EXACT.subtract(Decimal(found), Decimal(expected)))


def _make_document(result: _Result, others: int) -> Mapping[str, object]:
    return {
        "days": result.days,
        "records": result.records,
        "total": f"{result.total:f}",
        "records_not_in_the_sums_yet": others,
        "sums_that_differ": result.number,
        "remedy": _name_remedy(result) if result.number else None,
        "differences": [
            {
                "start": each.start,
                "table": each.table,
                "span": each.span,
                "key": dict(each.key),
                "figures": {
                    name: {
                        "sum": _format(found),
                        "records": _format(expected),
                        "difference": _subtract(found, expected),
                    }
                    for name, (found, expected) in each.figures.items()
                },
            }
            for each in result.differences
        ],
    }
