"""The option `--format` of commands that print results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])

#: Output format -> its readers.
_READERS: Mapping[str, str] = {
    "text": "people",
    "table": "people",
    "yaml": "people",
    "csv": "spreadsheets",
    "json": "programs",
    "jsonl": "programs",
    "focus": "finance tools",
}


def format_option(*formats: str) -> Callable[[_Command], _Command]:
    """Return the option `--format`, the parameter `output_format`.  The first format is the default."""
    uses = ", ".join(f"{name} for {_READERS[name]}" for name in formats)
    return click.option(
        "--format", "output_format", type=click.Choice(formats), default=formats[0], show_default=True, help=f"{uses}."
    )
