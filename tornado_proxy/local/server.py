"""The local proxy on a running event loop: the gateway of the server, with another admission and another provider.

start ──> serving ── stop() ──> running requests end ── stop() again, or the limit ──> aborted ──> stopped
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy import tasks
from tornado_proxy.budgets.keeper import BudgetKeeper, BudgetLedger
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome
from tornado_proxy.gateway.admission.capacity import ArrivingBytes, Capacity, DrainLimiter
from tornado_proxy.gateway.admission.object_ownership import ObjectOwnership
from tornado_proxy.gateway.application import ClientApplication
from tornado_proxy.gateway.bodies.parsing import BodyParser
from tornado_proxy.gateway.budgets.gate import BudgetGate
from tornado_proxy.gateway.realtime.live_calls import LiveCalls
from tornado_proxy.gateway.recorder import RecordListeners
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.listening import listen
from tornado_proxy.http_server.server import ClientPortServer
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.writer.group_commit import GroupCommitLedger
from tornado_proxy.local.access import LocalAccess
from tornado_proxy.local.admission import LocalAdmission
from tornado_proxy.local.error_texts import ErrorTexts
from tornado_proxy.local.folders import LEDGER_FILE
from tornado_proxy.local.hosted import HostedProxy, TokenSource
from tornado_proxy.local.project_settings import fetch_project_settings
from tornado_proxy.local.recorder import LocalRecorder, LocalView
from tornado_proxy.local.upstream import HostedUpstream
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.upstream.http.client import UpstreamClient

#: Seconds between two reads of the project's settings, which its operator can change.
SETTINGS_INTERVAL_S = 300.0

#: Seconds that running requests get after stop(), and in which aborted ones write their records.
_DRAIN_S, _LAST_RECORDS_S = 600.0, 2.0


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """The settings of a local proxy.

    Attributes:
        host: The address to listen on.
        port: The port, 0 for a free one.
        upstream: The root URL of the hosted proxy, without a final slash.
        tokens: The credential for it.
        caller: The project, and the participant or user that the credential names.
        access: Who may use the local proxy.
        folder: The state folder, where the ledger is.
    """

    host: str
    port: int
    upstream: str
    tokens: TokenSource
    caller: Caller
    access: LocalAccess
    folder: Path


class LocalServer:
    """The local proxy: call start(), then wait_stopped()."""

    def __init__(self, config: LocalConfig, view: LocalView) -> None:
        self._config = config
        self._view = view
        self._error_texts = ErrorTexts()
        caller = config.caller
        self._hosted = HostedProxy(config.upstream, caller.project_id, config.tokens, config.folder / LEDGER_FILE)
        self._hosted.allow_origins(config.access.origins)
        self._stopped = asyncio.Event()
        self._second_stop = asyncio.Event()
        self.port = 0

    async def start(self) -> None:
        """Open the ledger and the port.

        Raises:
            LedgerUnavailable: the ledger cannot be opened.
            ListenError: the port cannot be bound.
        """
        settings = self._hosted.snapshots.current.settings
        ledger = make_ledger(settings.ledger.address, fsync=False)
        await ledger.open()
        self._client = UpstreamClient()
        upstream = HostedUpstream(self._client, self._hosted, self._error_texts)
        settler = DeferredSettlement(self._hosted.snapshots, upstream, ledger)
        self._services = self._build_services(ledger, upstream, settler)
        clients = ClientApplication((), self._services)
        self._server = ClientPortServer(clients, clients.body_timeouts, clients.make_rejection)
        try:
            self.port = listen(self._server, self._config.host, self._config.port)
        except BaseException:
            await ledger.close()
            raise
        await self._read_settings()
        self._background = [
            tasks.spawn(settler.run(), "settlement"),
            tasks.spawn(self._follow_settings(), "settings of the project"),
        ]

    @property
    def has_prices_of_server(self) -> bool:
        """False if the server has stated that it has other price files, so that local amounts can differ."""
        return self._hosted.has_prices_of_server

    @property
    def in_flight(self) -> int:
        """The number of running requests."""
        return len(self._services.capacity)

    def stop(self) -> None:
        """Let running requests end; a second call aborts them."""
        if self._services.capacity.draining:
            self._second_stop.set()
            return
        self._services.capacity.begin_drain()
        tasks.spawn(self._drain(), "drain")

    async def wait_stopped(self) -> None:
        """Wait until the proxy has stopped and its ledger is complete."""
        await self._stopped.wait()

    def _build_services(
        self, ledger: GroupCommitLedger, upstream: HostedUpstream, settler: DeferredSettlement
    ) -> Services:
        ownership, live_calls, capacity = ObjectOwnership(ledger), LiveCalls(), Capacity()
        listeners = RecordListeners(ownership.remember, settler.poll_now, settler.record_ended)
        self._recorder = recorder = LocalRecorder(ledger, listeners, self._view, self._error_texts)
        # Never opened: the project has no budgets here.
        address = self._hosted.snapshots.current.settings.ledger.address
        budgets = BudgetGate(BudgetKeeper(BudgetLedger(address, ledger.locks, fsync=False)))
        admission = LocalAdmission(ownership, live_calls, capacity, recorder, settler, budgets)
        admission.use(self._config.access, self._hosted, self._config.caller)
        return Services(
            snapshots=self._hosted.snapshots,
            upstream=upstream,
            ledger=ledger,
            bodies=BodyParser(),
            admission=admission,
            recorder=recorder,
            live_calls=live_calls,
            capacity=capacity,
            arriving=ArrivingBytes(),
            drains=DrainLimiter(),
            settlement=settler,
            budgets=budgets,
            connect=upstream.connect,
            # Files of this machine arrive at once, and a request is sent again if the token is refused.
            sends_early=False,
        )

    async def _follow_settings(self) -> None:
        while True:
            await asyncio.sleep(SETTINGS_INTERVAL_S)
            await self._read_settings()

    async def _read_settings(self) -> None:
        config = self._config
        try:
            token = await config.tokens.get()
        except RequestError:
            return  # requests get the same error, and say what to do
        stated = await fetch_project_settings(config.upstream, token, config.caller.project_id)
        if stated is not None:
            self._hosted.apply(stated)

    async def _drain(self) -> None:
        services = self._services
        try:
            self._server.stop()
            idle = tasks.spawn(services.capacity.wait_idle(_DRAIN_S), "wait for requests in flight")
            again = tasks.spawn(self._second_stop.wait(), "wait for a second stop")
            await asyncio.wait((idle, again), return_when=asyncio.FIRST_COMPLETED)
            for task in (idle, again, *self._background):
                task.cancel()
            for request in services.capacity:
                request.end(Outcome.SHUTDOWN)
            await services.capacity.wait_idle(_LAST_RECORDS_S)
            await self._server.close_all_connections()
            services.bodies.close()
            self._client.close()
            await self._recorder.close()
            await services.ledger.close()
        finally:
            self._stopped.set()
