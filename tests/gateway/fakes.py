"""Fakes of the client and the provider, and a gateway on an in-memory ledger, for tests without sockets.

The configuration, prices, providers and tokens are real.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tornado.iostream import StreamClosedError

from tests import harness
from tests.ledger.memory_ledger import MemoryLedger
from tornado_proxy import snapshot
from tornado_proxy.auth.authenticator import Authenticator
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.budgets.rate_limits import RateUnit
from tornado_proxy.domain.budgets.refusal import Refusal
from tornado_proxy.domain.budgets.reservation import Reservation
from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError
from tornado_proxy.domain.identity import Project, ProjectProvider, ProviderKey, Secret, SessionGrant
from tornado_proxy.gateway.admission.admission import Admission
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.capacity import ArrivingBytes, Capacity, DrainLimiter
from tornado_proxy.gateway.admission.object_ownership import ObjectOwnership
from tornado_proxy.gateway.bodies.parsing import BodyParser
from tornado_proxy.gateway.budgets.gate import BudgetGate
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.realtime.live_calls import LiveCalls
from tornado_proxy.gateway.recorder import Recorder, RecordListeners
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.incoming_request import IncomingRequest, decode_fields
from tornado_proxy.key_rotation import KeyRotation
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.snapshot import Snapshot, SnapshotHolder
from tornado_proxy.upstream.http.messages import UpstreamRequest, UpstreamResponseHead, make_response_head
from tornado_proxy.upstream.websocket.connection import Closed, MessageHandler

PROVIDER_URL = "http://provider.test:9"

#: The provider's short-lived key inside the session keys of seal_session_key().
SESSION_PROVIDER_KEY = "ek_of_the_provider_0123456789"


@functools.cache
def _standard_snapshot() -> Snapshot:
    """Return the snapshot of tests.harness.write_config(); reading and checking its prices takes most of a second."""
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", harness.SECRETS):
        return snapshot.build(harness.write_config(Path(folder), PROVIDER_URL), 1)


def make_snapshot(*, projects: Iterable[Project] | None = None, **settings: Any) -> Snapshot:
    """Return the snapshot of a configuration with other `projects` and `settings`.

    A setting that is a mapping replaces members of its section: `streams={"drain_max": 1}`.
    """
    standard = _standard_snapshot()
    changed = {
        name: replace(getattr(standard.settings, name), **value)
        if is_dataclass(getattr(standard.settings, name))
        else value
        for name, value in settings.items()
    }
    # A new authenticator and route table: both cache, and a test must not see the entries of another one.
    chosen = tuple(standard.projects.values() if projects is None else projects)
    return replace(
        standard,
        settings=replace(standard.settings, **changed),
        projects={project.id: project for project in chosen},
        key_rotation=KeyRotation(),
        authenticator=Authenticator(chosen),
        routes=RouteTable(PROVIDERS),
    )


def make_project(**members: Any) -> Project:
    """Return the first project of the configuration, with `members` replaced."""
    return replace(_standard_snapshot().projects[harness.PROJECT], **members)


def own_keys(**secrets: str) -> dict[str, ProjectProvider]:
    """Return a project's own accounts, with one key each."""
    return {name: ProjectProvider((ProviderKey("default", Secret(secret)),)) for name, secret in secrets.items()}


def add_endpoints(standard: Snapshot, *endpoints: Endpoint) -> Snapshot:
    """Return a snapshot that serves `endpoints` of the first provider as well."""
    first, *others = PROVIDERS
    extended = replace(first, endpoints=(*first.endpoints, *endpoints))
    return replace(standard, routes=RouteTable([extended, *others]))


def request_head(
    target: str = "/openai/v1/chat/completions",
    *,
    method: str = "POST",
    token: str | None = None,
    headers: Iterable[tuple[str, str]] = (("Content-Type", "application/json"),),
    received_at: datetime | None = None,
) -> IncomingRequest:
    """Return a request with a participant token; without a credential if `token` is empty."""
    credential = [] if token == "" else [("Authorization", f"Bearer {harness.mint() if token is None else token}")]
    request = make_request(target, *credential, *headers, method=method)
    request.received_at = received_at or datetime.now(UTC)
    return request


def make_request(target: str, *headers: tuple[str, str], method: str = "GET", peer: str = "") -> IncomingRequest:
    """Return a request as the parser makes it."""
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    request = IncomingRequest(method, target, *decode_fields(fields))
    request.receive(peer, "http")
    return request


def seal_session_key(
    standard: Snapshot, query: str = "model=gpt-realtime", *, valid_for: timedelta = timedelta(minutes=1)
) -> str:
    """Return a short-lived key of ours, for the realtime session that `query` describes."""
    now = datetime.now(UTC)
    caller = standard.authenticator.authenticate(harness.mint(), now)
    grant = SessionGrant(Secret(SESSION_PROVIDER_KEY), query)
    return standard.authenticator.seal_session(caller, grant, int((now + valid_for).timestamp()))


class MemoryKeeper:
    """The counters of budgets: `refusal` is the one that the next requests get.  Satisfies gateway.budgets.Keeper."""

    def __init__(self) -> None:
        self.slices = Slices()
        self.plans: list[CounterPlan] = []
        self.refusal: Refusal | None = None
        self.ended: dict[str, Mapping[RateUnit, int]] = {}
        self.reserved: dict[str, Reservation] = {}
        self.asked = 0

    async def open(self, plan: CounterPlan) -> None:
        self.plans.append(plan)

    async def follow(self, plan: CounterPlan) -> None:
        self.plans.append(plan)

    def take(self, reservation: Reservation) -> bool:
        return False

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        self.asked += 1
        if self.refusal is None or reservation.forced:
            self.reserved[reservation.request_id] = reservation
        return self.refusal

    async def check(self, reservation: Reservation) -> Refusal | None:
        self.asked += 1
        return self.refusal

    def release(self, request_id: str) -> None:
        self.reserved.pop(request_id, None)

    def end(self, request_id: str, used: Mapping[RateUnit, int]) -> None:
        self.ended[request_id] = used

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class Gateway:
    """The gateway's parts on an in-memory ledger.  `polled` holds the objects that settlement was asked to poll."""

    snapshot: Snapshot
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    polled: list[str] = field(default_factory=list)
    provider: FakeProvider | None = None

    def __post_init__(self) -> None:
        self.ownership = ObjectOwnership(self.ledger)
        self.live_calls = LiveCalls()
        self.capacity = Capacity()
        self.bodies = BodyParser()
        self.drains = DrainLimiter()
        self.snapshots = SnapshotHolder(Path("proxy.yaml"), self.snapshot)
        provider = self.provider or FakeProvider({})
        self.settlement = DeferredSettlement(self.snapshots, provider, self.ledger)  # type: ignore[arg-type]  # a fake
        listeners = RecordListeners(self.ownership.remember, self.polled.append, self.settlement.record_ended)
        self.recorder = Recorder(self.ledger, listeners)
        self.keeper = MemoryKeeper()
        self.budgets = BudgetGate(self.keeper)
        self.admission = Admission(
            self.ownership, self.live_calls, self.capacity, self.recorder, self.settlement, self.budgets
        )

    async def admit(self, context: RequestContext[HttpEndpoint], body: bytes, request_id: str) -> AdmittedRequest:
        """Parse and admit a complete request."""
        parsed = await self.bodies.parse(context, body)
        return await self.admission.admit_request(context, parsed, request_id)

    def services(self, upstream: object = None) -> Services:
        """Return what handlers, relays and sidebands are given; `upstream` starts exchanges."""
        return Services(
            snapshots=self.snapshots,
            upstream=upstream,  # type: ignore[arg-type]  # a fake
            ledger=self.ledger,
            bodies=self.bodies,
            admission=self.admission,
            recorder=self.recorder,
            live_calls=self.live_calls,
            capacity=self.capacity,
            arriving=ArrivingBytes(),
            drains=self.drains,
            settlement=self.settlement,
            budgets=self.budgets,
        )


class FakeExchange:
    """An exchange that plays `steps`: response heads, body chunks, errors, and events to wait for.

    The response is complete after the last step.  After abort() every wait raises ExchangeAborted.
    """

    def __init__(self, steps: Iterable[UpstreamResponseHead | bytes | UpstreamError | asyncio.Event]) -> None:
        self._steps = deque(steps)
        self._aborted = asyncio.Event()
        self.abort_reasons: list[str] = []

    @property
    def complete(self) -> bool:
        return not self._steps

    @property
    def finished(self) -> bool:
        return not self._steps

    @property
    def held_bytes(self) -> int:
        return len(self._steps[0]) if self._steps and isinstance(self._steps[0], bytes) else 0

    async def head(self) -> UpstreamResponseHead:
        step = await self._next()
        assert isinstance(step, UpstreamResponseHead)
        return step

    async def read(self) -> bytes:
        step = await self._next() if self._steps else b""
        assert isinstance(step, bytes)
        return step

    def abort(self, reason: str) -> None:
        self.abort_reasons.append(reason)
        self._aborted.set()

    async def _next(self) -> UpstreamResponseHead | bytes:
        while True:
            if self._aborted.is_set() and self._steps:
                raise ExchangeAborted("aborted")
            step = self._steps.popleft() if self._steps else b""
            if isinstance(step, UpstreamError):
                raise step
            if not isinstance(step, asyncio.Event):
                return step
            aborted = asyncio.ensure_future(self._aborted.wait())  # awaited below
            released = asyncio.ensure_future(step.wait())  # awaited below
            await asyncio.wait((aborted, released), return_when=asyncio.FIRST_COMPLETED)
            aborted.cancel()
            released.cancel()
            if self._aborted.is_set():
                raise ExchangeAborted("aborted")


@dataclass
class FakeUpstream:
    """Starts one exchange, and keeps the request that it was given."""

    exchange: FakeExchange
    requests: list[UpstreamRequest] = field(default_factory=list)

    def start(self, request: UpstreamRequest) -> FakeExchange:
        self.requests.append(request)
        return self.exchange


def _name(request: UpstreamRequest) -> str:
    return f"{request.method} {request.url.removeprefix(PROVIDER_URL)}"


class FakeProvider:
    """Responds to requests by method and path; keeps them in order.

    A path with several responses gives them one after the other, and the last one from then on.  A response is a
    status with a body, or an error.
    """

    def __init__(self, responses: Mapping[str, Sequence[tuple[int, bytes] | UpstreamError]]) -> None:
        self._responses = {request: list(steps) for request, steps in responses.items()}
        self.requests: list[UpstreamRequest] = []

    @property
    def paths(self) -> list[str]:
        """The method and path of each request: "GET /v1/models"."""
        return [_name(request) for request in self.requests]

    def start(self, request: UpstreamRequest) -> FakeExchange:
        self.requests.append(request)
        responses = self._responses[_name(request)]
        response = responses.pop(0) if len(responses) > 1 else responses[0]
        if isinstance(response, UpstreamError):
            return FakeExchange([response])
        status, body = response
        return FakeExchange([make_response_head(status, "", ()), *([body] if body else [])])


class FakeSocket:
    """A WebSocket to a provider.  deliver() and end() play the provider; `sent` and `closes` show its view.

    The provider confirms a close frame at once, unless `confirms_close` is False.
    """

    def __init__(self, *, confirms_close: bool = True) -> None:
        self.sent: list[str | bytes] = []
        self.closes: list[tuple[int, str]] = []
        self.closed = False
        self._confirms_close = confirms_close
        self._incoming: asyncio.Queue[str | bytes | Closed] = asyncio.Queue()

    def deliver(self, *frames: str | bytes) -> None:
        for frame in frames:
            self._incoming.put_nowait(frame)

    def end(self, code: int = 1000, reason: str = "", *, broken: bool = False) -> None:
        self._incoming.put_nowait(Closed(code, reason, broken=broken))

    async def listen(self, handler: MessageHandler) -> Closed:
        while True:
            received = await self._incoming.get()
            if isinstance(received, Closed):
                self.closed = True
                return received
            wait = handler(received)
            if wait is not None:
                await wait

    def send(self, message: str | bytes) -> None:
        if self.closed or self.closes:
            raise UpstreamError("the connection to the provider is closed")
        self.sent.append(message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        # One close frame only, however often close() is called.
        if self.closed or self.closes:
            return
        self.closes.append((code, reason))
        if self._confirms_close:
            self.end(code, reason)


class FakeClient:
    """The client's side of a relay: keeps the bytes that it receives.  leave() makes every later write fail."""

    def __init__(self) -> None:
        self.head: tuple[int, str, list[tuple[str, str]]] | None = None
        self.body = b""
        self.finished = False
        self.was_cut = False
        self.error: UpstreamError | None = None
        self.gone = False
        #: True if the socket has taken the whole response.
        self.delivered = False
        #: True if it does so at the moment of the last write.
        self.takes_at_once = False

    def leave(self) -> None:
        self.gone = True

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        self.head = (status, reason, headers)

    def send(self, data: bytes) -> Awaitable[None]:
        self._check()
        self.body += data
        return asyncio.sleep(0)

    def finish_response(self, data: bytes) -> Awaitable[None]:
        self._check()
        self.body += data
        self.finished = True
        self.delivered = self.delivered or self.takes_at_once
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        taken.set_result(None)
        return taken

    def cut(self) -> None:
        self.was_cut = True

    async def reject(self, error: UpstreamError) -> None:
        self.error = error

    def _check(self) -> None:
        if self.gone:
            raise StreamClosedError
