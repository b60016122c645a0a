"""Tables and text for a terminal, a pipe or a file.  Amounts are never truncated; control characters are replaced."""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(table: Table, out: IO[str]) -> None:
    """Print a table.  A pipe or file gets lines as wide as the table needs."""
    # Rich assumes 80 columns for a pipe, and would break amounts and ids into two lines.
    console = Console(file=out, width=None if out.isatty() else 1000)
    with console.capture() as printed:  # written directly, the console would exit on a broken pipe by itself
        console.print(table)
    out.write(printed.get())


def replace_unprintable(text: str) -> str:
    """Return `text` with U+FFFD for control characters: names come from clients, and a terminal would obey them."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_text(text: str | None) -> Text:
    """Return a cell for text from a client: without markup and control characters, "-" for None or ""."""
    # Text, not str: Rich reads [red] in a str as markup.
    return Text(replace_unprintable(text) if text else "-")
