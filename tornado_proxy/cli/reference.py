"""Writes docs/commands.md out of the commands' own help, so that the page cannot lag behind them.

python -m tornado_proxy.cli.reference > docs/commands.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from tornado_proxy.cli import main

_INTRODUCTION = """\
# Commands

<!-- Made from the commands by: python -m tornado_proxy.cli.reference > docs/commands.md -->

Every command says the same with `--help`. What was asked for goes to standard output, everything else to standard
error. The exit status is 0 when all is well, 1 when something is wrong with what was given (a file, a token, a port in
use), and 2 when the command line itself cannot be understood.
"""

#: What click puts at the start of a paragraph whose lines it must keep.
_KEPT_LINES = "\b\n"


def write_reference() -> str:
    """The text of docs/commands.md."""
    return _INTRODUCTION + "".join(_sections(main, "tornado-proxy"))


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with the words that call it."""
    context = click.Context(group)
    for one in group.list_commands(context):
        command = group.get_command(context, one)
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {one}")
        elif command is not None:
            yield f"{name} {one}", command


def _sections(group: click.Group, name: str) -> Iterator[str]:
    for words, command in commands(group, name):
        text, example = _said(command)
        usage = " ".join((words, *command.collect_usage_pieces(click.Context(command))))
        yield f"\n## {words}\n\n{text}\n\n```\n{usage}\n```\n"
        rows = [_row(param) for param in command.params if isinstance(param, click.Option)]
        if rows:
            yield "\n| option | meaning |\n|---|---|\n" + "".join(rows)
        if example:
            yield f"\n```sh\n{example}\n```\n"


def _said(command: click.Command) -> tuple[str, str]:
    """A command's help without its example, and the lines of the example."""
    whole = "\n\n".join(inspect.cleandoc(text) for text in (command.help, command.epilog) if text)
    text, _, example = whole.replace(_KEPT_LINES, "").partition("Example:\n")
    return text.strip(), inspect.cleandoc(example)


def _row(option: click.Option) -> str:
    """A line of the table; a bar would end its cell."""
    record = option.get_help_record(click.Context(click.Command(None)))
    words, meaning = (part.replace("|", "\\|") for part in record or ("", ""))
    return f"| `{words}` | {meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(write_reference())
