"""`tornado-proxy --help` lists the subcommands without importing them."""

from __future__ import annotations

import subprocess
import sys

import click
from click.testing import CliRunner

from tests.harness import ROOT
from tornado_proxy.cli import main

#: Prints the help, then the modules of the command line that it has imported.
PROGRAM = """
import sys
from tornado_proxy.cli import main
main(["--help"], standalone_mode=False)
print(sorted(name for name in sys.modules if name.startswith("tornado_proxy.") or name in ("rich", "tornado")))
"""


def test_each_subcommand_has_the_line_of_its_own_help() -> None:
    """click's own method imports each subcommand and takes the first sentence of its docstring, or its short help."""
    context = click.Context(main, info_name="tornado-proxy", max_content_width=100, terminal_width=100)
    expected = context.make_formatter()
    click.Group.format_commands(main, context, expected)

    found = context.make_formatter()
    main.format_commands(context, found)

    assert found.getvalue() == expected.getvalue()
    assert "  serve       Run the proxy until SIGTERM.\n" in found.getvalue()


def test_help_imports_no_subcommand() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)

    assert printed.stdout.splitlines()[-1] == "['tornado_proxy.cli']"


def test_unknown_subcommand_is_named() -> None:
    result = CliRunner().invoke(main, ["srve"])

    assert result.exit_code == 2
    assert "No such command 'srve'" in result.output
