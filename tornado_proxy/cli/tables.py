"""Tables in a terminal, a pipe or a file: amounts are never cut short, and names of clients never run."""

from __future__ import annotations

from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(table: Table, out: IO[str]) -> None:
    """Print a table.  What is no terminal gets all the width that it needs."""
    console = Console(file=out, width=None if out.isatty() else 1000)
    with console.capture() as printed:  # the console would end the program itself on a broken pipe
        console.print(table)
    out.write(printed.get())


def plain_text(text: str | None) -> Text:
    """A cell of text that a client may have written: without markup and control characters, "-" where there is none."""
    return Text("".join(one if one.isprintable() else "\ufffd" for one in text) if text else "-")
