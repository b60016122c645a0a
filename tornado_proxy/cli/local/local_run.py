"""Runs a local proxy in the terminal: with the dashboard, with a line for each request, or beside a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

from tornado_proxy import event_loop
from tornado_proxy.domain.errors import LedgerUnavailable, ListenError
from tornado_proxy.domain.text import count_noun
from tornado_proxy.local.child import NOT_EXECUTABLE, NOT_FOUND, run_command
from tornado_proxy.local.coding_tools import ToolCommand
from tornado_proxy.local.dashboard.held_log import held_log
from tornado_proxy.local.dashboard.messages import EndStatus, Introduction
from tornado_proxy.local.dashboard.process import Dashboard
from tornado_proxy.local.dashboard.view import DashboardView
from tornado_proxy.local.environment import LEFTOVERS, make_child_environment, sdk_variables
from tornado_proxy.local.request_lines import RequestLines
from tornado_proxy.local.running_proxies import RunningProxy, announced
from tornado_proxy.local.server import LocalConfig, LocalServer
from tornado_proxy.local.shells import SHELLS
from tornado_proxy.observability import logs
from tornado_proxy.observability.logs import LineOutput

#: The variable with a token of the hosted proxy.
TOKEN_VARIABLE = "MESHAGENT_TOKEN"  # noqa: S105  # the name of a variable

DEFAULT_HOST = "127.0.0.1"

#: Addresses that mean every address of this machine; clients use DEFAULT_HOST.
ALL_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound

_OTHER_PRICES = "the server has other prices than this version, so its bills can differ from the amounts here"

#: Makes the command to run with a local proxy.
MakeCommand = Callable[[RunningProxy], ToolCommand]


@dataclass(frozen=True, slots=True)
class LocalSetup:
    """A local proxy to run.

    Attributes:
        config: Its configuration.
        source: Where its token comes from, for people.
        removed: Variables with credentials that a command must not get.
    """

    config: LocalConfig
    source: str
    removed: tuple[str, ...] = ()


def make_url(host: str, port: int) -> str:
    """Return the URL that clients on this machine use for a listener."""
    name = DEFAULT_HOST if host in ALL_ADDRESSES else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


class LocalRun:
    """One run of the local proxy."""

    def __init__(
        self, setup: LocalSetup, log: str | None, make_command: MakeCommand | None, *, dashboard: bool = False
    ) -> None:
        """Run a local proxy.

        Args:
            setup: Its configuration.
            log: `text` or `json`, the form of the line for each request; None for text, or none beside a command.
            make_command: Makes the command to run with it, None to run until a signal.
            dashboard: Show the dashboard in place of the lines.
        """
        self._setup = setup
        self._make_command = make_command
        self._shown = make_command is None or log is not None
        self._status = 0
        # A thread writes the lines, so that a terminal that does not read cannot hold up a stream.  A command has
        # standard output for itself.
        self._lines = LineOutput(sys.stdout.fileno() if make_command is None else sys.stderr.fileno())
        self._for_programs = log == "json" or make_command is not None
        self._request_lines = RequestLines(self._write, as_json=log == "json")
        self._dashboard = DashboardView(self._request_lines) if dashboard else None

    def run(self) -> int:
        """Run until a signal or the end of the command; return the exit status."""
        logs.start("WARNING")
        try:
            event_loop.run(self._serve())
        except LedgerUnavailable as error:
            raise click.ClickException(f"the local ledger cannot be opened: {error}") from None
        except ListenError as error:
            raise click.ClickException(f"cannot listen on {error}; name another --port (0 for any)") from None
        finally:
            self._lines.stop()
        return self._status

    def _write(self, line: str) -> None:
        if self._shown:
            self._lines.put(line)

    async def _serve(self) -> None:
        config = self._setup.config
        server = LocalServer(config, self._dashboard or self._request_lines)
        await server.start()
        proxy = RunningProxy(make_url(config.host, server.port), config.caller.project_id, config.access.bearer)
        with announced(config.folder, proxy):
            if self._make_command is None:
                # First: who reads the introduction may send a signal at once.
                _on_signals(lambda: _stop(server))
            self._introduce(proxy, same_prices=server.has_prices_of_server)
            if self._make_command is not None:
                await self._run_command(self._make_command(proxy))
                server.stop()
                server.stop()
            if self._dashboard is not None:
                await self._show_dashboard(server, self._dashboard, proxy)
            await server.wait_stopped()
        self._request_lines.finish()

    def _introduce(self, proxy: RunningProxy, *, same_prices: bool) -> None:
        security = "insecure: any program of this machine" if proxy.bearer is None else "secure"
        click.echo(f"listening on {proxy.url} for project {proxy.project_id} ({security})", err=True)
        click.echo(f"upstream: {self._setup.config.upstream} with {self._setup.source}", err=True)
        if not same_prices:
            click.echo(_OTHER_PRICES, err=True)
            if self._dashboard is not None:
                self._dashboard.feed.on_warning("prices", _OTHER_PRICES)
        block = "\n".join(("", "# Use these environment variables:", *_make_setup_lines(proxy), ""))
        click.echo(block, err=self._for_programs)

    async def _show_dashboard(self, server: LocalServer, view: DashboardView, proxy: RunningProxy) -> None:
        """Show the dashboard until the person quits or a signal arrives; if it fails, show lines from then on."""
        config, loop = self._setup.config, asyncio.get_running_loop()
        dashboard = Dashboard(view)

        def stop() -> None:
            server.stop()
            dashboard.close()

        _on_signals(stop)
        introduction = Introduction(
            url=proxy.url,
            upstream=config.upstream,
            source=self._setup.source,
            project_id=proxy.project_id,
            is_secure=proxy.bearer is not None,
            variables=tuple(_make_setup_lines(proxy)),
        )
        self._shown = False
        with held_log(lambda logger, message: loop.call_soon_threadsafe(view.feed.on_warning, logger, message)):
            status = await dashboard.run(introduction)
        self._shown = True
        _on_signals(lambda: _stop(server))
        if status is None:
            _tell("the dashboard has failed; requests are shown as lines (--no-tui does so at once)")
        elif status is EndStatus.QUIT_AND_ABORT:
            server.stop()
            server.stop()
        elif status is EndStatus.QUIT:
            _stop(server)
        else:
            _tell_waiting(server)  # the signal has stopped the server

    async def _run_command(self, command: ToolCommand) -> None:
        try:
            self._status = await run_command(command.arguments, make_tool_environment(command, self._setup.removed))
        except OSError as error:
            click.echo(f"{command.arguments[0]}: {error.strerror}", err=True)
            self._status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def make_tool_environment(command: ToolCommand, removed: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of a command beside a local proxy: no credential but the local one."""
    credentials = (*sdk_variables("", ""), TOKEN_VARIABLE, *removed)
    return make_child_environment(os.environ, command.variables, credentials)


def _make_setup_lines(proxy: RunningProxy) -> Iterable[str]:
    return SHELLS["bash"](sdk_variables(proxy.url, proxy.credential.reveal()), LEFTOVERS[:1])


def _on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _stop(server: LocalServer) -> None:
    """Stop; running requests end first, or at a second call."""
    _tell_waiting(server)
    server.stop()


def _tell_waiting(server: LocalServer) -> None:
    if server.in_flight:
        _tell(f"waiting for {count_noun(server.in_flight, 'request')}; stop again to abort them")


def _tell(message: str) -> None:
    # The terminal may be gone: its end is one of the signals that stop the proxy.
    with contextlib.suppress(OSError):
        click.echo(message, err=True)
