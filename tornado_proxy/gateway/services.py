"""The parts of the server that handlers use.  Built once, in app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tornado_proxy.gateway.admission.admission import Admission
from tornado_proxy.gateway.admission.capacity import ArrivingBytes, Capacity, DrainLimiter
from tornado_proxy.gateway.bodies.parsing import BodyParser
from tornado_proxy.gateway.budgets.gate import BudgetGate
from tornado_proxy.gateway.realtime.live_calls import LiveCalls
from tornado_proxy.gateway.realtime.session_sweep import SessionSweep
from tornado_proxy.gateway.recorder import Recorder
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.snapshot import SnapshotHolder
from tornado_proxy.upstream.http.protocols import Upstream
from tornado_proxy.upstream.websocket.connection import UpstreamWebSocket, WebSocketRequest, connect


@dataclass(frozen=True, slots=True)
class Services:
    """The services of a handler.

    `connect` opens WebSockets to providers.  `sends_early` is True if forms are sent while they arrive.
    """

    snapshots: SnapshotHolder
    upstream: Upstream
    ledger: Ledger
    bodies: BodyParser
    admission: Admission
    recorder: Recorder
    live_calls: LiveCalls
    capacity: Capacity
    arriving: ArrivingBytes
    drains: DrainLimiter
    settlement: DeferredSettlement
    budgets: BudgetGate
    connect: Callable[[WebSocketRequest], Awaitable[UpstreamWebSocket]] = connect
    session_sweep: SessionSweep = field(default_factory=SessionSweep)
    sends_early: bool = True
