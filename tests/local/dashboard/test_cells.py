"""Amounts, durations and names of others, as the dashboard shows them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tornado_proxy.local.dashboard.cells import (
    fit,
    show_age,
    show_amount,
    show_block,
    show_count,
    show_duration,
    show_exact,
    show_line,
    show_mark,
)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "-"),
        (Decimal(0), "$0.000000"),
        (Decimal("0.000000000001"), "<$0.000001"),
        (Decimal("0.0000144"), "$0.000014"),
        (Decimal("1234.5"), "$1234.500000"),
    ],
)
def test_amount_has_six_decimals_and_is_never_zero_unless_it_is(amount: Decimal | None, shown: str) -> None:
    assert show_amount(amount) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "-"),
        (Decimal(2), "$2.000000"),
        (Decimal("0.000000726300"), "$0.0000007263"),
        (Decimal("1E+3"), "$1000.000000"),
    ],
)
def test_exact_amount_has_all_its_decimals(amount: Decimal | None, shown: str) -> None:
    assert show_exact(amount) == shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (None, "-"),
        (0, "0ms"),
        (999, "999ms"),
        (1_234, "1.23s"),
        (59_994, "59.99s"),
        (187_999, "3m07s"),
        (7_500_000, "2h05m"),
    ],
)
def test_duration_fits_seven_characters(milliseconds: int | None, shown: str) -> None:
    assert show_duration(milliseconds) == shown


def test_age_counts_in_tenths_of_a_second_then_in_seconds() -> None:
    assert [show_age(age) for age in (0, 940, 59_940, 60_000)] == ["0.0s", "0.9s", "59.9s", "1m00s"]


def test_counts_and_marks() -> None:
    assert [show_count(count) for count in (None, 0, 99_999_999, 123_456_789)] == ["-", "0", "99,999,999", "123.5M"]
    bases = ("reported", "free", "estimated", "inferred", "unsettled", "pending")
    assert [show_mark(basis) for basis in bases] == ["", "", "~", "~", "!", "!"]


def test_text_of_others_stays_on_its_line_and_cannot_command_the_terminal() -> None:
    assert show_line("a\nb\tc\x1b[2J\x9b1m\u202e\u2028") == "a b c\\u001b[2J\\u009b1m\\u202e\\u2028"
    assert show_block("a\ntotal $0\x1b") == "  a\n  total $0\\u001b"


@pytest.mark.parametrize(
    ("text", "width", "right", "shown"),
    [
        ("abc", 5, False, "abc  "),
        ("abc", 5, True, "  abc"),
        ("abcdef", 4, False, "abc…"),
        # Each of these takes two cells.
        ("模型名称", 6, False, "模型 …"),
        ("模型", 5, False, "模型 "),
        ("abc", 0, False, ""),
    ],
)
def test_text_fits_its_cells_exactly(text: str, width: int, right: bool, shown: str) -> None:
    assert fit(text, width, right=right) == shown
