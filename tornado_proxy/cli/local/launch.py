"""`tornado-proxy launch`: runs a coding tool through the local proxy, without changing its files."""

from __future__ import annotations

import sys

import click

from tornado_proxy.cli.local.connect import execute
from tornado_proxy.cli.local.local import make_setup
from tornado_proxy.cli.local.local_run import DEFAULT_HOST, LocalRun, make_tool_environment
from tornado_proxy.local.coding_tools import TOOLS, ToolCommand, make_tool_command
from tornado_proxy.local.folders import find_state_folder
from tornado_proxy.local.running_proxies import RunningProxy, find_newest


@click.command()
@click.argument("tool", type=click.Choice(tuple(TOOLS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--upstream", metavar="URL", help="The hosted proxy, if no local proxy runs.")
@click.option("--project", metavar="ID", help="The project, if no local proxy runs.")
def launch(tool: str, arguments: tuple[str, ...], upstream: str | None, project: str | None) -> None:
    """Run a coding tool through the local proxy.

    TOOL gets ARGUMENTS. If no local proxy runs, one is started until the tool ends.

    Codex gets options and Claude Code settings on its command line; no file of yours is changed.

    \b
    Example:
      tornado-proxy launch claude
      tornado-proxy launch codex -- exec "say hello"
    """

    def make_command(proxy: RunningProxy) -> ToolCommand:
        return make_tool_command(tool, proxy.url, proxy.credential.reveal(), arguments)

    running = find_newest(find_state_folder())
    if running is not None:
        command = make_command(running)
        execute(command.arguments, make_tool_environment(command))
    setup = make_setup(
        {
            "host": DEFAULT_HOST,
            "port": 0,
            "upstream": upstream,
            "project": project,
            "bearer": None,
            "insecure": False,
            "token_variable": None,
            "origins": frozenset(),
            "hosts": (),
        }
    )
    sys.exit(LocalRun(setup, None, make_command).run())
