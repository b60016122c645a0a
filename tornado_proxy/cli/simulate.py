"""`tornado-proxy simulate`: runs the simulated providers."""

from __future__ import annotations

import asyncio
import signal
import sys

import click

from tornado_proxy import event_loop
from tornado_proxy.providers.registry import PROVIDER_NAMES, PROVIDERS
from tornado_proxy.simulator import Simulator


@click.command(short_help="Simulate the providers on one port.")
@click.option(
    "--port", type=click.IntRange(0, 65535), required=True, help="The port to listen on; 0 selects a free port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--require-key",
    "keys",
    multiple=True,
    metavar="PROVIDER=KEY",
    help=f"Accept only this key for {' or '.join(PROVIDER_NAMES)}; by default any key is accepted.",
)
@click.option("--record", is_flag=True, help="Return the last requests at /_simulator/requests.")
@click.option(
    "--settle-s",
    type=click.FloatRange(min=0),
    default=0.2,
    show_default=True,
    help="Seconds until background responses and message batches are finished.",
)
@click.option("--reuse-port", is_flag=True, help="Share the port with other simulator processes, for benchmarks.")
def simulate(*, port: int, host: str, keys: tuple[str, ...], record: bool, settle_s: float, reuse_port: bool) -> None:
    """Simulate OpenAI and Anthropic on one port.  No key is needed, and nothing is charged.

    \b
    Example:
      tornado-proxy simulate --port 9090
      OPENAI_BASE_URL=http://127.0.0.1:9090/v1 OPENAI_API_KEY=any python my_program.py
    """
    simulator = Simulator(keys=dict(_read_key(key) for key in keys), record=record, settle_s=settle_s)
    try:
        event_loop.run(_serve(simulator, host, port, reuse_port=reuse_port))
    # Usually a port in use.
    except OSError as error:
        click.echo(f"cannot listen: {error}; choose another --port, or 0 for a free one", err=True)
        sys.exit(1)


def _read_key(option: str) -> tuple[str, str]:
    """Return (provider, key) of a value of --require-key."""
    provider, _, key = option.partition("=")
    if provider not in PROVIDER_NAMES or not key:
        # The message never contains the value: it can be a key that was given without a provider.
        forms = " or ".join(f"{name}=KEY" for name in PROVIDER_NAMES)
        raise click.BadParameter(f"the value must be {forms}", param_hint="--require-key")
    return provider, key


async def _serve(simulator: Simulator, host: str, port: int, *, reuse_port: bool) -> None:
    bound = await simulator.start(port, host, reuse_port=reuse_port)
    # SIGTERM as well as Ctrl-C: containers are stopped with it.
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    click.echo(
        f"simulating {' and '.join(provider.title for provider in PROVIDERS)} on http://{host}:{bound}", err=True
    )
    await stopped.wait()
    await simulator.stop()
