"""Splitting a time into days, hours and records."""

from __future__ import annotations

import pytest

from tornado_proxy.ledger.reports.time_parts import TimePart, keep_days, split_time

_DAY = "2026-11-28T00:00:00.000Z"
_NEXT_DAY = "2026-11-29T00:00:00.000Z"


def _at(hour: int, minute: int = 0, day: int = 28) -> str:
    return f"2026-11-{day:02}T{hour:02}:{minute:02}:00.000Z"


@pytest.mark.parametrize(
    ("since", "until", "parts"),
    [
        (None, None, [TimePart("day", None, None)]),
        (_DAY, _NEXT_DAY, [TimePart("day", _DAY, _NEXT_DAY)]),
        (_DAY, None, [TimePart("day", _DAY, None)]),
        (_at(3), _at(5), [TimePart("hour", _at(3), _at(5))]),
        (_at(3, 10), _at(3, 50), [TimePart("", _at(3, 10), _at(3, 50))]),
        # The hour between both edges is empty.
        (_at(3, 10), _at(4, 50), [TimePart("", _at(3, 10), _at(4, 50))]),
        (
            _at(3, 10),
            _at(5, 50),
            [
                TimePart("", _at(3, 10), _at(4)),
                TimePart("hour", _at(4), _at(5)),
                TimePart("", _at(5), _at(5, 50)),
            ],
        ),
        # The day between both edges is empty.
        (_at(20, day=27), _at(20), [TimePart("hour", _at(20, day=27), _at(20))]),
        (
            _at(22, 30, day=27),
            _at(1, 30, day=29),
            [
                TimePart("", _at(22, 30, day=27), _at(23, day=27)),
                TimePart("hour", _at(23, day=27), _DAY),
                TimePart("day", _DAY, _NEXT_DAY),
                TimePart("hour", _NEXT_DAY, _at(1, day=29)),
                TimePart("", _at(1, day=29), _at(1, 30, day=29)),
            ],
        ),
        (
            None,
            _at(1, 30),
            [
                TimePart("day", None, _DAY),
                TimePart("hour", _DAY, _at(1)),
                TimePart("", _at(1), _at(1, 30)),
            ],
        ),
    ],
)
def test_a_time_is_split_into_days_then_hours_then_records(
    since: str | None, until: str | None, parts: list[TimePart]
) -> None:
    assert list(split_time(since, until, by_hour=False)) == parts


def test_groups_by_hour_need_hours_in_place_of_days() -> None:
    assert list(split_time(_at(23, 30, day=27), None, by_hour=True)) == [
        TimePart("", _at(23, 30, day=27), _DAY),
        TimePart("hour", _DAY, None),
    ]


def test_sums_by_day_alone_leave_the_hours_to_the_records() -> None:
    assert list(keep_days(split_time(_at(23, day=27), _NEXT_DAY, by_hour=False))) == [
        TimePart("", _at(23, day=27), _DAY),
        TimePart("day", _DAY, _NEXT_DAY),
    ]
