from __future__ import annotations

import csv
import io

import pytest

from tornado_proxy.wire.csv_cells import TrustedText, safe_cell, write_rows


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "  ="])  # noqa: RUF001
def test_possible_formula_gets_an_apostrophe(start: str) -> None:
    assert safe_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("text", ["ada", "", "a=b", "0.5", "gpt-5.4", "ada\n=1"])
def test_other_text_is_unchanged(text: str) -> None:
    assert safe_cell(text) == text


def test_csv_reader_returns_the_written_rows() -> None:
    out = io.StringIO(newline="")

    write_rows(out, ("name", "n", "total"), [('a, "b"\nc', 1, TrustedText("-0.5")), (None, 2, "-0.5")])

    assert list(csv.reader(io.StringIO(out.getvalue(), newline=""))) == [
        ["name", "n", "total"],
        ['a, "b"\nc', "1", "-0.5"],
        ["", "2", "'-0.5"],
    ]
