"""Builds the server from its parts, opens its ports, reloads the configuration, drains and stops.

start ──> serving ── SIGHUP ──> reload: a new snapshot, or the old one and a list of faults in the log
             │ SIGTERM, SIGINT
             v
          draining: /readyz fails, new requests are rejected, streams continue for at most shutdown.drain_s
             │ all requests have ended, drain_s has passed, or a second signal
             v
          the remaining requests are aborted, the ledger is flushed, exit 0
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path

from tornado_proxy import snapshot, tasks
from tornado_proxy.alerts.events import AlertEvents
from tornado_proxy.alerts.sender import AlertSender
from tornado_proxy.api.accounts.routes import FIXED_PATHS
from tornado_proxy.api.admin.application import AdminApplication
from tornado_proxy.api.admin.services import AdminServices
from tornado_proxy.api.client_routes import list_client_rules
from tornado_proxy.api.start_page import list_start_paths
from tornado_proxy.budgets.keeper import BudgetKeeper, BudgetLedger, BudgetListeners
from tornado_proxy.config.changes import describe_changes
from tornado_proxy.config.settings import ListenSettings, Settings
from tornado_proxy.dashboard.requests.live_requests import LiveFeed, OwnRequests
from tornado_proxy.dashboard.requests.other_processes import OtherProcesses
from tornado_proxy.dashboard.routes import list_rules
from tornado_proxy.dashboard.site import Site
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.errors import ConfigError, LedgerUnavailable
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.state import State, StateChange
from tornado_proxy.gateway.admission.admission import Admission
from tornado_proxy.gateway.admission.capacity import ArrivingBytes, Capacity, DrainLimiter
from tornado_proxy.gateway.admission.object_ownership import ObjectOwnership
from tornado_proxy.gateway.admission.stops import enforce_stops
from tornado_proxy.gateway.application import ClientApplication
from tornado_proxy.gateway.bodies.parsing import BodyParser
from tornado_proxy.gateway.budgets.brakes import SpendBrakes
from tornado_proxy.gateway.budgets.gate import BudgetGate
from tornado_proxy.gateway.budgets.warnings import report_warning
from tornado_proxy.gateway.realtime.live_calls import LiveCalls
from tornado_proxy.gateway.recorder import Recorder, RecordListeners
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.fd_limits import raise_fd_limit
from tornado_proxy.http_server.listening import listen
from tornado_proxy.http_server.server import AdminPortServer, ClientPortServer
from tornado_proxy.http_server.tls import make_tls_context
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.writer.group_commit import GroupCommitLedger
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.observability import metrics
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.snapshot import Snapshot, SnapshotHolder
from tornado_proxy.state import reload_requests
from tornado_proxy.state.store import StateStore
from tornado_proxy.state.watcher import StateWatcher
from tornado_proxy.telemetry.supervision import Telemetry, check_telemetry
from tornado_proxy.upstream.http.client import UpstreamClient

_log = logging.getLogger(__name__)

#: Seconds between two log lines of a drain, which may take minutes: an operator sees that it is no hang.
_DRAIN_LOG_INTERVAL_S = 60.0

#: Seconds in which aborted requests can write their records at the end of a shutdown.
_LAST_RECORDS_S = 2.0


class Server:
    """The server on a running event loop: call start(), then wait_stopped()."""

    def __init__(self, config: Path, first: Snapshot, admin_port: int | None = None) -> None:
        """Keep the configuration; `admin_port` replaces that of the configuration, for several processes."""
        self._snapshots = SnapshotHolder(config, first)
        self._services: Services | None = None
        self._servers: list[ClientPortServer] = []
        # fsync: a change is rare, and a revoked key must not be valid again after a loss of power.
        store = StateStore(make_backend(first.settings.ledger.address, fsync=True))
        self._state = StateWatcher(store, self._set_state, self._on_state_changes)
        #: The ids of requests to reload that this process has made and not read yet.
        self._own_reload_requests: set[str] = set()
        self._admin_port = admin_port
        self._budgets: BudgetGate | None = None
        self._brakes: SpendBrakes | None = None
        self._client_port: ClientPortServer | None = None
        self._alerts = AlertSender(self._state, lambda: self._snapshots.current.settings.alerts, self._find_usage)
        self._alert_events = AlertEvents(self._alerts, self._snapshots)
        self._background: list[asyncio.Task[None]] = []
        self._telemetry: Telemetry | None = None
        self._others: OtherProcesses | None = None
        self._stopped = asyncio.Event()
        self._second_signal = asyncio.Event()
        self._reloading = asyncio.Lock()
        self.port = 0
        self.admin_port = 0

    async def start(self) -> None:
        """Open the ledger, then the client port and the admin port.

        Raises:
            LedgerUnavailable: the ledger cannot be opened, or the state in its database not be read.
            ListenError: a port cannot be bound.
            ConfigError: a package that the configuration needs is not installed.
        """
        raise_fd_limit()
        settings = self._snapshots.current.settings
        check_telemetry(self._snapshots.path, settings.otlp_endpoint)
        ledger = make_ledger(settings.ledger.address, fsync=settings.ledger.fsync)
        await ledger.open()
        await self._state.open()
        budgets = await self._open_budgets(ledger, settings)
        self._snapshots.current.key_rotation.on_set_aside = self._alert_events.key_set_aside
        upstream = self._upstream = UpstreamClient()
        settler = DeferredSettlement(self._snapshots, upstream, ledger)
        services = self._services = self._build_services(ledger, upstream, settler, budgets)
        running = OwnRequests(services.recorder.list_running)
        self._others = OtherProcesses(self._state, ledger.locks.writer_id, running.share)
        self._background = [
            tasks.spawn(settler.run(), "settlement"),
            tasks.spawn(self._state.run(), "state"),
            tasks.spawn(self._alerts.run(), "alerts"),
            tasks.spawn(services.recorder.refusals.run(), "refusals"),
            tasks.spawn(enforce_stops(self._snapshots, services.capacity), "stops"),
            tasks.spawn(self._others.run(), "other processes"),
        ]
        self._open_ports(services, LiveFeed(running, self._others.list_requests), settings)
        if settings.otlp_endpoint is not None:
            self._telemetry = Telemetry(settings.ledger.address, settings.otlp_endpoint)

    async def _find_usage(self, query: UsageQuery) -> UsageResult:
        assert self._services is not None, "start() begins the tasks that ask when the ledger is open"
        return await self._services.ledger.usage(query)

    async def _open_budgets(self, ledger: GroupCommitLedger, settings: Settings) -> BudgetGate:
        """Open the budgets and count what the configuration needs."""
        budget_ledger = BudgetLedger(settings.ledger.address, ledger.locks, fsync=settings.ledger.fsync)
        listeners = BudgetListeners(self._report_warning, self._tell_of_warning, self._apply_brake)
        # Before anything is counted: the first record can reach a threshold.
        budgets = self._budgets = BudgetGate(BudgetKeeper(budget_ledger, listeners))
        self._brakes = SpendBrakes(self._state, budgets, self._alert_events.spend_brake)
        await budgets.follow(self._snapshots.current)
        budgets.watch(self._snapshots.current.budget_limits)
        return budgets

    def _build_services(
        self, ledger: Ledger, upstream: UpstreamClient, settler: DeferredSettlement, budgets: BudgetGate
    ) -> Services:
        ownership, live_calls, capacity = ObjectOwnership(ledger), LiveCalls(), Capacity()
        listeners = RecordListeners(ownership.remember, settler.poll_now, settler.record_ended, budgets.request_ended)
        recorder = Recorder(ledger, listeners)
        return Services(
            snapshots=self._snapshots,
            upstream=upstream,
            ledger=ledger,
            bodies=BodyParser(),
            admission=Admission(ownership, live_calls, capacity, recorder, settler, budgets),
            recorder=recorder,
            live_calls=live_calls,
            capacity=capacity,
            arriving=ArrivingBytes(),
            drains=DrainLimiter(),
            settlement=settler,
            budgets=budgets,
        )

    def _open_ports(self, services: Services, feed: LiveFeed, settings: Settings) -> None:
        start_paths = list_start_paths(PROVIDERS)
        pages = list_rules(Site(services, self._state, is_admin=False, feed=feed))
        rules = list_client_rules(services, self._state, pages, start_paths)
        clients = ClientApplication(rules, services, start_paths, FIXED_PATHS)
        tls = self._load_tls(settings)
        self._client_port = ClientPortServer(clients, clients.body_timeouts, clients.make_rejection, tls)
        self.port = self._listen(self._client_port, settings.listen)
        admin_pages = list_rules(Site(services, self._state, is_admin=True, feed=feed))
        admin = AdminApplication(AdminServices(services, self._state, self), admin_pages)
        admin_server = AdminPortServer(admin, admin.body_timeouts, admin.make_rejection)
        self.admin_port = self._listen(admin_server, self._find_admin_address(settings.admin))

    def _load_tls(self, settings: Settings) -> ssl.SSLContext | None:
        """Read the certificate and its key; return the TLS of the client port, None if it speaks plain HTTP.

        Raises:
            ConfigError: the files have changed since the configuration was checked.
        """
        files = settings.listen.tls
        if files is None:
            return None
        try:
            return make_tls_context(files)
        except OSError as error:
            rule = f"cannot be used: {error.strerror or error}"
            raise ConfigError([Fault(str(self._snapshots.path), 0, "listen.tls", rule)]) from error

    def _find_admin_address(self, configured: ListenSettings) -> ListenSettings:
        # A port of its own is not shared: two processes with the same one must not start.
        return configured if self._admin_port is None else ListenSettings(configured.host, self._admin_port)

    def _listen(self, server: ClientPortServer, address: ListenSettings) -> int:
        """Accept connections at `address`; return the port, which the kernel chooses if the configured one is 0."""
        port = listen(server, address.host, address.port, reuse_port=address.reuse_port)
        self._servers.append(server)
        return port

    def handle_signals(self) -> None:
        """Install signal handlers: SIGTERM and SIGINT drain, a second one stops at once, SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.spawn(self._reload_and_log(), "reload"))

    async def check_reload(self) -> list[str]:
        """Read the configuration as reload() does, and return the changes.

        Raises:
            ConfigError: reload() would raise it.
        """
        current = self._snapshots.current
        new, changes = await asyncio.to_thread(_build, self._snapshots.path, current.generation, current)
        self._snapshots.check_swap(new)
        return changes

    async def reload(self) -> list[str]:
        """Read the configuration and swap the snapshot; requests in flight keep the old one.

        Returns:
            The changes, by key.

        Raises:
            ConfigError: the configuration is invalid; the old one stays in use.
        """
        async with self._reloading:
            generation = self._snapshots.current.generation + 1
            try:
                # In a thread: reading and validating all files takes longer than a stream may pause.
                old = self._snapshots.current
                new, changes = await asyncio.to_thread(_build, self._snapshots.path, generation, old)
                self._snapshots.check_swap(new)
                tls = self._load_tls(new.settings)
                if self._services is not None:
                    # Before the swap: a budget must not be in force before its counter is right.
                    await self._services.budgets.follow(new)
                self._snapshots.swap(new)
                if self._client_port is not None:
                    self._client_port.tls = tls
                if self._services is not None:
                    self._services.budgets.watch(self._snapshots.current.budget_limits)
            except ConfigError:
                metrics.CONFIG_RELOAD_FAILED.set(1)
                raise
            metrics.CONFIG_RELOAD_FAILED.set(0)
            _log.info("configuration reloaded", extra={"config_generation": generation, "changes": changes})
            return changes

    async def request_reload_of_others(self, actor: str) -> None:
        """Tell the other processes of the ledger to reload.

        Raises:
            LedgerUnavailable: they cannot be told.
        """
        request_id = reload_requests.make_id()
        self._own_reload_requests.add(request_id)
        try:
            await self._state.change(lambda store: reload_requests.request(store, actor, request_id))
        except LedgerUnavailable:
            self._own_reload_requests.discard(request_id)
            raise

    def _report_warning(self, warning: BudgetWarning) -> None:
        report_warning(warning)
        self._tell_of_warning(warning)

    def _tell_of_warning(self, warning: BudgetWarning) -> None:
        self._alert_events.budget_warning(warning, lambda: self._forget_warning(warning))

    def _forget_warning(self, warning: BudgetWarning) -> None:
        assert self._budgets is not None, "start() makes it before anything is counted"
        tasks.spawn(self._budgets.forget_alert(warning), "forget alert")

    def _apply_brake(self, brake: Brake) -> None:
        assert self._brakes is not None, "start() makes it before anything is counted"
        self._brakes.apply(brake)

    def _set_state(self, state: State) -> None:
        old = self._snapshots.current.state.budget_changes
        self._snapshots.set_state(state)
        if self._services is not None and state.budget_changes != old:
            self._services.budgets.watch(self._snapshots.current.budget_limits)

    def _on_state_changes(self, changes: Sequence[StateChange]) -> None:
        if reload_requests.find_foreign(changes, self._own_reload_requests):
            tasks.spawn(self._reload_and_log(), "reload")

    async def _reload_and_log(self) -> None:
        try:
            await self.reload()
        except ConfigError as error:
            _log.error("reload refused; the old configuration stays in use", extra={"faults": str(error).splitlines()})

    def stop(self) -> None:
        """Start to drain; a second call stops at once."""
        assert self._services is not None
        if self._services.capacity.draining:
            self._second_signal.set()
            return
        self._services.capacity.begin_drain()
        tasks.spawn(self._drain(self._services), "drain")

    async def wait_stopped(self) -> None:
        """Wait until the server has drained and the ledger is flushed."""
        await self._stopped.wait()

    async def _drain(self, services: Services) -> None:
        try:
            limit_s = self._snapshots.current.settings.shutdown.drain_s
            _log.info("draining", extra={"in_flight": len(services.capacity), "limit_s": limit_s})
            self._servers[0].stop()
            idle = tasks.spawn(services.capacity.wait_idle(limit_s), "wait for requests in flight")
            second_signal = tasks.spawn(self._second_signal.wait(), "wait for a second signal")
            progress = tasks.spawn(_log_drain(services.capacity, limit_s), "log the drain")
            await asyncio.wait((idle, second_signal), return_when=asyncio.FIRST_COMPLETED)
            for task in (idle, second_signal, progress):
                task.cancel()
            for request in services.capacity:
                request.end(Outcome.SHUTDOWN)
            await services.capacity.wait_idle(_LAST_RECORDS_S)
            for server in self._servers:
                server.stop()
                await server.close_all_connections()
            for task in self._background:
                task.cancel()
            services.recorder.refusals.flush()
            await self._alerts.flush()
            if self._others is not None:
                await self._others.leave()
            await self._state.close()
            services.bodies.close()
            self._upstream.close()
            await services.ledger.close()
            if self._telemetry is not None:
                await self._telemetry.close()
            await services.budgets.close()
            _log.info("stopped")
        finally:
            self._stopped.set()


def _build(path: Path, generation: int, old: Snapshot) -> tuple[Snapshot, list[str]]:
    """Return the snapshot of the configuration at `path`, and what differs from the old one."""
    new = snapshot.build(path, generation, old)
    changes = describe_changes((old.settings, old.projects), (new.settings, new.projects))
    return new, changes if new.prices.equals(old.prices) else [*changes, "prices"]


async def _log_drain(capacity: Capacity, limit_s: float) -> None:
    """Log the requests that still run during a drain, once a minute, until cancelled."""
    remaining_s = limit_s
    while True:
        await asyncio.sleep(_DRAIN_LOG_INTERVAL_S)
        remaining_s -= _DRAIN_LOG_INTERVAL_S
        _log.info(
            "still draining",
            extra={
                "in_flight": len(capacity),
                "arriving": capacity.arriving,
                "by_project": capacity.count_by_project(),
                "remaining_s": max(0.0, remaining_s),
            },
        )
