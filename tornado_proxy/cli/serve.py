"""`tornado-proxy serve`: runs the proxy."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tornado_proxy import event_loop, snapshot
from tornado_proxy.app import Server
from tornado_proxy.cli.options.config_option import config_option
from tornado_proxy.domain.errors import ConfigError, LedgerUnavailable, ListenError
from tornado_proxy.observability import logs
from tornado_proxy.observability.logs import LineWriter
from tornado_proxy.snapshot import Snapshot


@click.command()
@config_option("The proxy's configuration.")
@click.option(
    "--admin-port",
    type=click.IntRange(0, 65535),
    help="In place of admin.port, for several processes with one configuration; 0 selects a free port.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The lowest level that is logged; each request logs one line at info.",
)
def serve(config: Path, admin_port: int | None, log_level: str) -> None:
    """Run the proxy until SIGTERM.

    SIGHUP reloads the configuration, SIGUSR1 opens the log file again.

    \b
    Example:
      OPENAI_API_KEY=... ANTHROPIC_API_KEY=... tornado-proxy serve --config conf/proxy.yaml
    """
    # Before the configuration is read, so that its warnings are logged in the same format.
    writer = logs.start(log_level.upper())
    # From the first moment: without a handler the signal ends the process.
    signal.signal(signal.SIGUSR1, lambda *_: writer.reopen())
    try:
        with exit_on_startup_errors(config):
            first = snapshot.build(config, 1)
            _open_log_file(writer, first.settings.log_file)
            event_loop.run(_serve(config, first, admin_port))
    finally:
        writer.stop()


def _open_log_file(writer: LineWriter, path: Path | None) -> None:
    if path is None:
        return
    try:
        writer.add_file(path)
    except OSError as error:
        click.echo(f"log.file: {path} cannot be opened: {error.strerror}; change its folder's permissions", err=True)
        sys.exit(1)


@contextlib.contextmanager
def exit_on_startup_errors(config: Path) -> Iterator[None]:
    """Print the errors that prevent a start to standard error, and exit with status 1."""
    try:
        yield
    except ConfigError as error:
        click.echo(f"the configuration cannot be used:\n{error}", err=True)
        sys.exit(1)
    except LedgerUnavailable as error:
        click.echo(f"the ledger cannot be opened: {error}", err=True)
        sys.exit(1)
    except ListenError as error:
        click.echo(
            f"cannot listen on {error}; change listen or admin in {config}, or stop the process that uses the port",
            err=True,
        )
        sys.exit(1)


async def _serve(config: Path, first: Snapshot, admin_port: int | None) -> None:
    server = Server(config, first, admin_port)
    await server.start()
    # After start(), so that the garbage collector never scans the configuration and prices again.
    event_loop.freeze_startup_objects()
    server.handle_signals()
    listen = first.settings.listen
    scheme = "https" if listen.tls is not None else "http"
    click.echo(f"clients: {_url(listen.host, server.port, scheme)}", err=True)
    click.echo(f"admin: {_url(first.settings.admin.host, server.admin_port)}", err=True)
    await server.wait_stopped()


def _url(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL of a listener, with brackets around an IPv6 address (RFC 3986 section 3.2.2)."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
