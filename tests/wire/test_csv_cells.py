from __future__ import annotations

import csv
import io

import pytest

from tornado_proxy.wire.csv_cells import Plain, safe_cell, write_rows


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "  ="])  # noqa: RUF001
def test_what_a_spreadsheet_could_run_begins_with_an_apostrophe(start: str) -> None:
    assert safe_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("text", ["ada", "", "a=b", "0.5", "gpt-5.4", "ada\n=1"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text


def test_rows_come_back_as_they_were_given() -> None:
    out = io.StringIO(newline="")

    write_rows(out, ("name", "n", "total"), [('a, "b"\nc', 1, Plain("-0.5")), (None, 2, "-0.5")])

    assert list(csv.reader(io.StringIO(out.getvalue(), newline=""))) == [
        ["name", "n", "total"],
        ['a, "b"\nc', "1", "-0.5"],
        ["", "2", "'-0.5"],
    ]
