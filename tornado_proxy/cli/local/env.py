"""`tornado-proxy env`: prints the variables of the running local proxy."""

from __future__ import annotations

import click

from tornado_proxy.local.environment import LEFTOVERS, sdk_variables
from tornado_proxy.local.folders import find_state_folder
from tornado_proxy.local.running_proxies import RunningProxy, find_newest
from tornado_proxy.local.shells import SHELLS


@click.command()
@click.option(
    "--shell", type=click.Choice(tuple(SHELLS)), default="bash", show_default=True, help="The syntax of the lines."
)
def env(shell: str) -> None:
    """Print the variables for the running local proxy.

    SDKs that read them use the local proxy that was started last.

    \b
    Example:
      eval "$(tornado-proxy env)"
      tornado-proxy env --shell fish | source
    """
    proxy = require_running()
    variables = sdk_variables(proxy.url, proxy.credential.reveal())
    click.echo("\n".join(SHELLS[shell](variables, LEFTOVERS[:1])))


def require_running() -> RunningProxy:
    """Return the local proxy that was started last and runs.

    Raises:
        click.ClickException: none runs.
    """
    proxy = find_newest(find_state_folder())
    if proxy is None:
        raise click.ClickException("no local proxy runs; start one with tornado-proxy local")
    return proxy
