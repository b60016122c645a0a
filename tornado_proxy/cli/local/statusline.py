"""`tornado-proxy statusline`: its options and help.  The command itself starts in __main__.py, without click."""

from __future__ import annotations

import sys

import click

from tornado_proxy.local.statusline import run


@click.command()
@click.option("--ledger", metavar="URL", help="An SQLite ledger, sqlite:///PATH; default: that of the local proxies.")
@click.option("--session", metavar="ID", help="The agent session; default: that of the JSON on standard input.")
@click.option("--api", metavar="URL", help="The URL of a server's client port, for the rest of your budgets.")
@click.option("--token-env", metavar="NAME", help="The environment variable with your token, for --api.")
@click.option("--project", metavar="ID", help="Your project, if the token does not name it.")
def statusline(**options: str | None) -> None:
    """Print the spend as text for a status line.

    The spend of today (UTC), the rest of the budget, and the spend of this session.

    Claude Code writes its session to standard input; set it as `statusLine.command`.  Budgets are fetched in the
    background and are up to 30 seconds old.

    \b
    Example:
      tornado-proxy statusline --api https://llm.example.com --token-env ANTHROPIC_API_KEY
    """
    given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    sys.exit(run([text for pair in given for text in pair]))
