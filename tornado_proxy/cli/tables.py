"""Tables and text for a terminal, a pipe or a file.

Amounts are never truncated, long names are cut in the middle (JSON and CSV have them whole), and control characters are
replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns of a table in a pipe or a file, unless the caller names fewer.
_PIPE_WIDTH = 1000

#: Characters of a name in a table.  Names of credentials have up to 255, and one of these would break every line.
MAX_CHARACTERS = 64

#: Forms of a table, from the widest: decimals of amounts (None: all), and characters of a name (None: MAX_CHARACTERS).
_FORMS = ((None, None), (6, None), (6, 32), (6, 24), (4, 24), (4, 16), (4, 12), (4, 8))


def print_table(table: Table, out: IO[str]) -> None:
    """Print a table.  A pipe or file gets lines as wide as the table needs."""
    # Rich assumes 80 columns for a pipe, and would break amounts and ids into two lines.
    console = Console(file=out, width=None if out.isatty() else _PIPE_WIDTH)
    with console.capture() as printed:  # written directly, the console would exit on a broken pipe by itself
        console.print(table)
    out.write(printed.get())


def print_fitting_table(
    make: Callable[[int | None, int | None], Table], out: IO[str], pipe_width: int = _PIPE_WIDTH
) -> None:
    """Print the widest form of a table that fits a terminal, or `pipe_width` columns in a pipe or file.

    `make` returns the table for a number of decimals and a length of names, None for the usual ones.
    """
    print_table(fit_table(make, Console(file=out).width if out.isatty() else pipe_width), out)


def fit_table(make: Callable[[int | None, int | None], Table], width: int) -> Table:
    """Return the widest form of a table with at most `width` columns; the narrowest if none fits."""
    # Measured in a wide console: in a narrow one every table is as wide as the console.
    console = Console(width=_PIPE_WIDTH)
    tables = (make(decimals, characters) for decimals, characters in _FORMS)
    return next((table for table in tables if console.measure(table).maximum <= width), None) or make(*_FORMS[-1])


def cut_middle(text: str, characters: int) -> str:
    """Return `text` with its middle replaced by an ellipsis: names often differ at both ends."""
    if len(text) <= characters:
        return text
    end = (characters - 1) // 2
    return f"{text[: characters - 1 - end]}…{text[len(text) - end :]}"


def replace_unprintable(text: str) -> str:
    """Return `text` with U+FFFD for control characters: names come from clients, and a terminal would obey them."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_text(text: str | None) -> Text:
    """Return a cell for text from a client: without markup and control characters, "-" for None or ""."""
    # Text, not str: Rich reads [red] in a str as markup.
    return Text(replace_unprintable(text) if text else "-")


def printable_name(name: str | None, characters: int | None = None) -> Text:
    """Return the same for a name; one of more than `characters`, by default MAX_CHARACTERS, is cut in the middle."""
    return printable_text(name and cut_middle(name, characters or MAX_CHARACTERS))
