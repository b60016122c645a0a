"""The `tornado-proxy` command: one file for each subcommand, imported when the subcommand is used."""

from __future__ import annotations

import importlib

import click

import tornado_proxy

#: Subcommand -> "module:attribute" and its line in --help, in the order of --help.
_COMMANDS = {
    "serve": ("tornado_proxy.cli.serve:serve", "Run the proxy until SIGTERM."),
    "demo": ("tornado_proxy.cli.demo:demo", "Run the proxy with a new project, key and token."),
    "check": ("tornado_proxy.cli.check:check", "Check a configuration."),
    "dashboard": ("tornado_proxy.cli.state.dashboard:dashboard", "Print a one-time link to the web dashboard."),
    "project": ("tornado_proxy.cli.projects.projects:project", "Add projects to the configuration, and show them."),
    "key": ("tornado_proxy.cli.projects.credentials:key", "Manage the API keys of projects."),
    "token": ("tornado_proxy.cli.projects.credentials:token", "Mint and inspect participant tokens."),
    "access-key": (
        "tornado_proxy.cli.state.access_keys:access_key",
        "Manage access keys, which clients use in place of a token.",
    ),
    "stop": (
        "tornado_proxy.cli.state.stops:stop",
        "Refuse the requests of a project, participant or agent session, and end open ones.",
    ),
    "resume": ("tornado_proxy.cli.state.stops:resume", "Lift a stop."),
    "connect": ("tornado_proxy.cli.local.connect:connect", "Run COMMAND as a participant of a room."),
    "local": ("tornado_proxy.cli.local.local:local", "Run a proxy on this machine."),
    "env": ("tornado_proxy.cli.local.env:env", "Print the variables for the running local proxy."),
    "launch": ("tornado_proxy.cli.local.launch:launch", "Run a coding tool through the local proxy."),
    "login": ("tornado_proxy.cli.local.login:login", "Log in at a server with OAuth."),
    "logout": ("tornado_proxy.cli.local.login:logout", "Revoke the login and delete the session of this machine."),
    "whoami": ("tornado_proxy.cli.local.login:whoami", "Print who is logged in, and at which server."),
    "budget": (
        "tornado_proxy.cli.state.budgets:budget",
        "Show budgets, and change their limits while the server runs.",
    ),
    "alerts": ("tornado_proxy.cli.state.alerts:alerts", "Test the webhooks that get alerts."),
    "state": ("tornado_proxy.cli.state.state:state", "Manage the encryption of provider keys that were set over REST."),
    "usage": ("tornado_proxy.cli.reports.usage:usage", "Show the cost of requests and its basis."),
    "ledger": ("tornado_proxy.cli.ledger:ledger", "Sum, verify, archive, prune and copy the records of a ledger."),
    "export": ("tornado_proxy.cli.reports.export:export", "Give records to other programs, as CloudEvents."),
    "statusline": ("tornado_proxy.cli.local.statusline:statusline", "Print the spend as text for a status line."),
    "pricing": ("tornado_proxy.cli.pricing.group:pricing", "Show, check and compare the price files."),
    "explain": ("tornado_proxy.cli.reports.explain:explain", "Show the itemised bill of one request."),
    "recompute": ("tornado_proxy.cli.reports.recompute:recompute", "Rate past requests with today's prices."),
    "simulate": ("tornado_proxy.cli.simulate:simulate", "Simulate the providers on one port."),
}


class _LazyGroup(click.Group):
    """A group that imports the file of a subcommand on demand.

    Importing all of them takes 0.9 s, this module alone 0.05 s: the server needs Tornado and libcurl, the tables rich.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands from the table: click's own method imports each of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(tornado_proxy.__version__, prog_name="tornado-proxy")
def main() -> None:
    """Serve OpenAI and Anthropic clients with your own tokens, keep the provider keys, and bill every request exactly.

    \b
    Example:
      tornado-proxy serve --config conf/proxy.yaml
    """
