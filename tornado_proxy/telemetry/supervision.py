"""Starts the telemetry process, reads its reports, and starts it again if it ends."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tornado_proxy import tasks
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.observability import metrics
from tornado_proxy.telemetry.setup import make_setup

_log = logging.getLogger(__name__)

#: Seconds before a process that has ended is started again.
_RESTART_S = 5.0

#: Seconds in which the last requests can be sent at the end of the server.
_LAST_REQUESTS_S = 5.0

#: Variables that the process gets, beside those of OpenTelemetry and of libpq: none of them is a provider key.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PREFIXES = ("OTEL_", "PG")


def check_telemetry(config: Path, endpoint: str | None) -> None:
    """Raise ConfigError if telemetry is configured, and its packages are not installed; imports none of them."""
    if endpoint is None:
        return
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        rule = "needs the packages of OpenTelemetry; pip install 'tornado-proxy[otel]'"
        raise ConfigError([Fault(str(config), 0, "telemetry.otlp_endpoint", rule)])


class Telemetry:
    """The telemetry process of a server."""

    def __init__(self, address: LedgerAddress, endpoint: str) -> None:
        self._setup = json.dumps(make_setup(address, endpoint)).encode() + b"\n"
        self._process: asyncio.subprocess.Process | None = None
        self._failure = ""
        self._task = tasks.spawn(self._run(), "telemetry")

    async def close(self) -> None:
        """Let the process send the last requests, and end it."""
        self._task.cancel()
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _LAST_REQUESTS_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _run(self) -> None:
        while True:
            self._process = process = await self._start()
            assert process.stdout is not None
            async for line in process.stdout:
                self._show(json.loads(line))
            metrics.OTLP_FAILING.set(1)
            _log.error("the telemetry process has ended", extra={"exit_code": await process.wait()})
            await asyncio.sleep(_RESTART_S)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "tornado_proxy.telemetry.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # The same modules as here, wherever this process was started.
            env={**_select(os.environ), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            # Ctrl-C ends the server, which then ends the process.
            start_new_session=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it has ended already
            process.stdin.write(self._setup)
            await process.stdin.drain()
        return process

    def _show(self, report: Mapping[str, object]) -> None:
        failure = str(report["failure"])
        metrics.OTLP_REQUESTS.inc(int(str(report["sent"])))
        metrics.OTLP_FAILING.set(1 if failure else 0)
        if failure and not self._failure:
            _log.warning("telemetry cannot be sent", extra={"reason": failure})
        elif self._failure and not failure:
            _log.warning("telemetry is sent again")
        self._failure = failure


def _select(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name in _ENVIRONMENT or name.startswith(_PREFIXES)}
