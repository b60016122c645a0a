"""Tables that fit a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from tests.cli.rated_ledger import run
from tornado_proxy.cli.tables import MAX_CHARACTERS, cut_middle, fit_table, printable_name

MODEL = "claude-sonnet-4-5-20250929-with-a-long-suffix"
AMOUNT = "12.345678901234"


def make(decimals: int | None, characters: int | None) -> Table:
    table = Table("model", "subtotal USD", "surcharge USD", "total USD")
    amount = AMOUNT if decimals is None else f"{float(AMOUNT):.{decimals}f}"
    table.add_row(printable_name(MODEL, characters), amount, amount, amount)
    return table


def rendered(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(fit_table(make, width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "row"),
    [
        pytest.param(200, f"│ {MODEL} │ {AMOUNT} │ {AMOUNT} │ {AMOUNT} │", id="a wide terminal has all"),
        pytest.param(100, f"│ {MODEL} │ 12.345679 │ 12.345679 │ 12.345679 │", id="fewer decimals"),
        pytest.param(80, "│ claude-sonnet-4-…h-a-long-suffix │ 12.345679 │ 12.345679 │ 12.345679 │", id="80 columns"),
        pytest.param(60, "│ claude…uffix │ 12.3457 │ 12.3457 │ 12.3457 │", id="60 columns"),
    ],
)
def test_amounts_are_rounded_and_names_cut_but_no_cell_is_broken(width: int, row: str) -> None:
    lines = rendered(width)

    assert max(map(len, lines)) <= width
    assert [" ".join(line.split()) for line in lines if "12." in line] == [row]


@pytest.mark.parametrize(
    ("characters", "cut"), [(64, "0123456789"), (10, "0123456789"), (9, "0123…6789"), (8, "0123…789"), (3, "0…9")]
)
def test_middle_of_a_long_name_is_cut(characters: int, cut: str) -> None:
    assert cut_middle("0123456789", characters) == cut


def test_longest_name_of_a_token_takes_one_line_of_a_table() -> None:
    name = "a" * 200 + "b" * 55

    assert printable_name(name).plain == "a" * 32 + "…" + "b" * 31
    assert len(printable_name(name).plain) == MAX_CHARACTERS
    assert printable_name("a" * MAX_CHARACTERS).plain == "a" * MAX_CHARACTERS
    assert printable_name(None).plain == "-"


def test_list_of_models_stays_below_120_columns_in_a_pipe() -> None:
    lines = run("pricing", "list").stdout.splitlines()

    assert max(map(len, lines)) < 120
    assert sum("gpt-6-astra " in line for line in lines) == 1


@pytest.mark.parametrize("group", [(), ("key",), ("token",), ("pricing",)])
def test_help_of_a_command_is_one_whole_line(group: tuple[str, ...]) -> None:
    text = run(*group, "--help").stdout

    assert "..." not in text.partition("Commands:")[2]
