"""Every start and every end of a realtime call's sideband, with fakes for the provider's two sides."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests import harness, virtual_time
from tests.gateway.fakes import (
    SESSION_PROVIDER_KEY,
    FakeProvider,
    FakeSocket,
    Gateway,
    make_project,
    make_snapshot,
    request_head,
    seal_session_key,
)
from tests.gateway.realtime.sessions import created, delta, done, make_tariff_snapshot, session_updated
from tornado_proxy.domain.errors import UpstreamError, UpstreamUnreachable
from tornado_proxy.domain.record import Outcome, RequestRecord
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.realtime.sideband import MAX_RECONNECTS, CallSideband
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.upstream.http.messages import UpstreamResponseHead, make_response_head
from tornado_proxy.upstream.websocket.connection import WebSocketRequest

HANG_UP = "POST /v1/realtime/calls/rtc_1/hangup"
CREATED = make_response_head(201, "Created", (("Location", "/v1/realtime/calls/rtc_1"),))
REFUSED = UpstreamUnreachable("the provider could not be reached: refused", request_sent=False)

FORM_TYPE = "multipart/form-data; boundary=b"
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="sdp"\r\n\r\nv=0\r\n'
    b'--b\r\nContent-Disposition: form-data; name="session"\r\n\r\n{"type":"realtime","model":"gpt-realtime"}\r\n'
    b"--b--\r\n"
)


class Connector:
    """Connects sidebands: gives `results` one after the other, the last one from then on."""

    def __init__(self, *results: FakeSocket | UpstreamError) -> None:
        self._results = deque(results)
        self.requests: list[WebSocketRequest] = []

    @property
    def keys(self) -> list[str]:
        """The provider key of each attempt."""
        return [request.key_headers[0][1].reveal().removeprefix("Bearer ") for request in self.requests]

    async def __call__(self, request: WebSocketRequest) -> FakeSocket:
        self.requests.append(request)
        result = self._results.popleft() if len(self._results) > 1 else self._results[0]
        if isinstance(result, UpstreamError):
            raise result
        return result


class Call:
    """A realtime call that a client has made, and the sideband that meters it."""

    def __init__(self, gateway: Gateway, connect: Connector, provider: FakeProvider | None = None) -> None:
        self.gateway = gateway
        self.connect = connect
        self.provider = FakeProvider({HANG_UP: [(200, b"")]}) if provider is None else provider

    async def create(self, head: UpstreamResponseHead = CREATED, token: str | None = None) -> None:
        """Let the provider respond to the request for a call."""
        admission = self.gateway.admission
        target, headers = "/openai/v1/realtime/calls", [("Content-Type", FORM_TYPE)]
        context = admission.authenticate(self.gateway.snapshot, request_head(target, token=token, headers=headers))
        admitted = await self.gateway.admit(context, FORM, "req_1")
        self.sideband = CallSideband(admitted, self.gateway.services(self.provider), self.connect)
        await self.sideband.response_received(head)
        await virtual_time.settle()

    async def wait_ended(self) -> None:
        await self.gateway.capacity.wait_idle(100_000)
        await virtual_time.settle()

    @property
    def records(self) -> list[RequestRecord]:
        """The records of work; the free record of the whole call is left out."""
        return [record for record in self.gateway.ledger.finished if record.basis is not Basis.FREE]

    @property
    def call_records(self) -> list[RequestRecord]:
        return [record for record in self.gateway.ledger.finished if record.basis is Basis.FREE]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


Act = Callable[[Call, FakeSocket], Awaitable[None]]


def metered(gateway: Gateway, act: Act, *, provider: FakeProvider | None = None, token: str | None = None) -> Call:
    """Make a call whose sideband connects, let `act` play the provider, and wait until the call has ended."""

    async def run() -> Call:
        socket = FakeSocket()
        call = Call(gateway, Connector(socket), provider)
        await call.create(token=token)
        await act(call, socket)
        await call.wait_ended()
        return call

    return virtual_time.run(run())


def rejected(call: Call, head: UpstreamResponseHead = CREATED, token: str | None = None) -> tuple[UpstreamError, float]:
    """Make a call that cannot be metered; return the error that its client gets, and after how many seconds."""

    async def run() -> tuple[UpstreamError, float]:
        with pytest.raises(UpstreamError) as caught:
            await call.create(head, token)
        return caught.value, asyncio.get_running_loop().time()

    return virtual_time.run(run())


async def request_work(socket: FakeSocket) -> None:
    socket.deliver(created(), delta())
    await virtual_time.settle()


# Starts.


def test_call_is_metered_from_its_response_on(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        assert call.sideband.call_id == "rtc_1"
        assert len(gateway.capacity) == 1
        (request,) = call.connect.requests
        assert request.url == "http://provider.test:9/v1/realtime?call_id=rtc_1"
        assert (request.headers, request.subprotocols) == ((), ())
        assert call.connect.keys == [harness.OPENAI_KEY]
        assert [intent.session for intent in gateway.ledger.begun] == [None, "rtc_1"]
        socket.deliver(created(), done())
        await virtual_time.settle()
        socket.end()

    call = metered(gateway, act)

    (record,), (whole_call,) = call.records, call.call_records
    assert (record.basis, record.outcome, record.intent.session) == (Basis.REPORTED, Outcome.COMPLETED, "rtc_1")
    assert gateway.ledger.begun[1:] == [whole_call.intent, record.intent]
    assert call.provider.requests == []
    assert len(gateway.capacity) == 0


def test_reload_changes_the_prices_of_the_next_response_of_a_call(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        socket.deliver(created(), delta())
        await virtual_time.settle()
        gateway.snapshots.current = make_tariff_snapshot(surcharge_rate=Decimal("0.5"))
        socket.deliver(done(), created("resp_2"), done("resp_2"))
        await virtual_time.settle()
        socket.end()

    costs = [record.cost for record in metered(gateway, act).records]

    assert [cost.surcharge / cost.subtotal for cost in costs] == [Decimal("0.05"), Decimal("0.5")]


def test_created_call_belongs_to_the_project_at_once(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        context = gateway.admission.authenticate(
            gateway.snapshot, request_head("/openai/v1/realtime/calls/rtc_1/hangup")
        )
        await gateway.ownership.require_own(context, ())
        socket.end()

    metered(gateway, act)


@pytest.mark.parametrize(
    "location",
    ["/v1/realtime/calls/rtc_1", "https://api.openai.com/v1/realtime/calls/rtc_1/", "/v1/realtime/calls/rtc_1?a=1"],
)
def test_id_of_the_call_is_the_last_segment_of_its_location(gateway: Gateway, location: str) -> None:
    async def run() -> str | None:
        socket = FakeSocket()
        socket.end()
        call = Call(gateway, Connector(socket))
        await call.create(make_response_head(201, "Created", (("Location", location),)))
        return call.sideband.call_id

    assert virtual_time.run(run()) == "rtc_1"


def test_accepted_call_is_the_one_in_the_path() -> None:
    gateway = Gateway(make_snapshot(projects=[make_project(allowed_objects=frozenset({"rtc_phone"}))]))

    async def run() -> Connector:
        connect = Connector(FakeSocket())
        context = gateway.admission.authenticate(
            gateway.snapshot, request_head("/openai/v1/realtime/calls/rtc_phone/accept")
        )
        body = b'{"type": "realtime", "model": "gpt-realtime"}'
        admitted = await gateway.admit(context, body, "req_1")
        sideband = CallSideband(admitted, gateway.services(), connect)
        await sideband.response_received(make_response_head(200, "OK", ()))
        return connect

    assert [request.url[-len("call_id=rtc_phone") :] for request in virtual_time.run(run()).requests] == [
        "call_id=rtc_phone"
    ]


def test_response_without_a_call_is_an_error(gateway: Gateway) -> None:
    call = Call(gateway, Connector(REFUSED))

    error, _ = rejected(call, make_response_head(201, "Created", ()))

    assert "names no call" in error.message
    assert (call.connect.requests, call.provider.requests) == ([], [])


def test_call_whose_sideband_cannot_be_connected_is_hung_up_and_its_client_gets_502(gateway: Gateway) -> None:
    call = Call(gateway, Connector(REFUSED))

    error, seconds = rejected(call)

    assert (error.status, seconds) == (502, pytest.approx(0.1 + 0.4 + 1.5))
    assert error.message == f"the call was ended because it could not be metered: {REFUSED.message}"
    assert len(call.connect.requests) == 4
    assert call.provider.paths == [HANG_UP]
    assert [record.outcome for record in call.call_records] == [Outcome.UPSTREAM_ERROR]
    assert call.records == []


def test_call_is_hung_up_if_the_ledger_cannot_store_its_intent(gateway: Gateway) -> None:
    call = Call(gateway, Connector(FakeSocket()))
    begin = gateway.ledger.begin

    async def fail_for_the_call(intent: Any) -> None:
        if intent.session is not None:
            gateway.ledger.fail("the disk is full")
        await begin(intent)

    gateway.ledger.begin = fail_for_the_call  # type: ignore[method-assign]

    error, _ = rejected(call)

    assert "the disk is full" in error.message
    assert call.connect.requests == []
    assert call.provider.paths == [HANG_UP]


def test_sideband_is_connected_with_each_key_that_may_know_the_call(gateway: Gateway) -> None:
    async def run() -> Call:
        socket = FakeSocket()
        call = Call(gateway, Connector(REFUSED, REFUSED, REFUSED, socket))
        await call.create(token=seal_session_key(gateway.snapshot))
        socket.end()
        await call.wait_ended()
        return call

    call = virtual_time.run(run())

    assert call.connect.keys == [SESSION_PROVIDER_KEY, harness.OPENAI_KEY, SESSION_PROVIDER_KEY, harness.OPENAI_KEY]
    assert call.provider.requests == []


def test_client_does_not_wait_for_the_sideband_if_the_configuration_says_end() -> None:
    gateway = Gateway(make_snapshot(websockets={"sideband_failure": "end"}))

    async def run() -> Call:
        call = Call(gateway, Connector(REFUSED))
        await call.create()
        assert asyncio.get_running_loop().time() == 0
        await call.wait_ended()
        return call

    call = virtual_time.run(run())

    assert len(call.connect.requests) == 4
    assert call.provider.paths == [HANG_UP]
    assert [record.outcome for record in call.call_records] == [Outcome.UPSTREAM_BROKEN]


# Breaks.


def test_sideband_that_breaks_is_connected_again_and_work_goes_on(gateway: Gateway) -> None:
    async def run() -> Call:
        first, second = FakeSocket(), FakeSocket()
        call = Call(gateway, Connector(first, REFUSED, second))
        await call.create()
        await request_work(first)
        first.end(broken=True)
        await asyncio.sleep(1)
        second.deliver(done())
        await virtual_time.settle()
        second.end()
        await call.wait_ended()
        return call

    call = virtual_time.run(run())

    assert [record.basis for record in call.records] == [Basis.REPORTED]
    assert len(call.connect.requests) == 3
    assert call.provider.requests == []


def test_sideband_that_keeps_breaking_hangs_up(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> Call:
        # One more than the proxy may connect: a sixth socket that it listened to would show in the requests.
        sockets = [FakeSocket() for _ in range(MAX_RECONNECTS + 1)]
        for socket in sockets:
            socket.end(broken=True)
        call = Call(gateway, Connector(*sockets))
        await call.create()
        await call.wait_ended()
        return call

    call = virtual_time.run(run())

    assert len(call.connect.requests) == MAX_RECONNECTS + 1
    assert call.provider.paths == [HANG_UP]
    (warning,) = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert warning.getMessage() == "realtime call hung up: sideband lost"
    assert vars(warning)["reason"] == f"the sideband broke {MAX_RECONNECTS} times"


def test_sideband_that_cannot_be_connected_again_hangs_up_and_estimates(gateway: Gateway) -> None:
    async def run() -> Call:
        socket = FakeSocket()
        call = Call(gateway, Connector(socket, REFUSED))
        await call.create()
        await request_work(socket)
        socket.end(broken=True)
        await call.wait_ended()
        return call

    call = virtual_time.run(run())

    assert call.provider.paths == [HANG_UP]
    (record,) = call.records
    assert (record.basis, record.outcome) == (Basis.ESTIMATED, Outcome.UPSTREAM_BROKEN)


# Ends.


async def credential_is_revoked(call: Call, socket: FakeSocket) -> None:
    call.gateway.snapshots.current = make_snapshot(projects=[])


async def price_is_removed(call: Call, socket: FakeSocket) -> None:
    call.gateway.snapshots.current = make_tariff_snapshot(prices=PriceBook.from_documents([]))


async def call_is_old(call: Call, socket: FakeSocket) -> None:
    """The call runs until its lifetime."""


async def model_has_no_price(call: Call, socket: FakeSocket) -> None:
    socket.deliver(session_updated("gpt-next"))


async def model_has_no_price_while_an_intent_is_stored(call: Call, socket: FakeSocket) -> None:
    socket.deliver(created("resp_2"), session_updated("gpt-next"), done("resp_2"))


async def server_shuts_down(call: Call, socket: FakeSocket) -> None:
    call.gateway.capacity.begin_drain()


async def admin_stops_the_participant(call: Call, socket: FakeSocket) -> None:
    at = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
    others = Stop("stop_1", StopTarget(participant="eve"), "cli:root", at)
    own = Stop("stop_2", StopTarget(participant="ada"), "cli:root", at)
    call.gateway.capacity.stop([others])
    assert len(call.gateway.capacity) == 1
    for _ in range(2):  # the search is repeated while the call ends
        call.gateway.capacity.stop([others, own])


async def shutdown_takes_too_long(call: Call, socket: FakeSocket) -> None:
    for request in call.gateway.capacity:
        request.end(Outcome.SHUTDOWN)
        # The first end decides: a limit that is reached while the call is hung up must not hang up again.
        request.end(Outcome.UPSTREAM_BROKEN)


@pytest.mark.parametrize(
    ("act", "outcome", "reason"),
    [
        pytest.param(credential_is_revoked, Outcome.PROXY_CLOSED, "the credential is no longer valid", id="revoked"),
        pytest.param(price_is_removed, Outcome.PROXY_CLOSED, "model 'gpt-realtime' has no price", id="price removed"),
        pytest.param(call_is_old, Outcome.PROXY_CLOSED, "the call reached its lifetime of 3900 s", id="lifetime"),
        pytest.param(model_has_no_price, Outcome.PROXY_CLOSED, "gpt-next", id="no price"),
        pytest.param(admin_stops_the_participant, Outcome.PROXY_CLOSED, "ada was stopped by cli:root", id="stop"),
        pytest.param(server_shuts_down, Outcome.SHUTDOWN, None, id="shutdown"),
        pytest.param(shutdown_takes_too_long, Outcome.SHUTDOWN, None, id="shutdown takes too long"),
    ],
)
def test_each_end_by_the_proxy_hangs_up_once_and_closes_the_sideband(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, act: Act, outcome: Outcome, reason: str | None
) -> None:
    sockets: list[FakeSocket] = []

    async def keep_socket(call: Call, socket: FakeSocket) -> None:
        sockets.append(socket)
        await act(call, socket)

    call = metered(gateway, keep_socket)

    assert call.provider.paths == [HANG_UP]
    assert sockets[0].closes == [(1000, "")]
    assert [record.outcome for record in call.call_records] == [outcome]
    warnings = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert [line.getMessage() for line in warnings] == ([] if reason is None else ["realtime call hung up"])
    assert all(reason in vars(line)["reason"] for line in warnings if reason is not None)


def test_sideband_that_breaks_as_the_call_is_hung_up_is_not_connected_again(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        socket.end(broken=True)
        await server_shuts_down(call, socket)

    call = metered(gateway, act)

    assert len(call.connect.requests) == 1
    assert call.provider.paths == [HANG_UP]


def test_call_that_changes_its_model_after_new_work_is_hung_up_too(gateway: Gateway) -> None:
    call = metered(gateway, model_has_no_price_while_an_intent_is_stored)

    assert call.provider.paths == [HANG_UP]


def test_call_that_begins_while_the_server_shuts_down_is_hung_up(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        assert call.provider.paths == [HANG_UP]

    gateway.capacity.begin_drain()
    call = metered(gateway, act)

    assert [record.outcome for record in call.call_records] == [Outcome.SHUTDOWN]


def test_sideband_that_connects_when_its_call_has_been_hung_up_is_closed() -> None:
    gateway = Gateway(make_snapshot(websockets={"sideband_failure": "end"}))
    socket = FakeSocket()

    async def run() -> Call:
        call = Call(gateway, Connector(REFUSED, socket))
        await call.create()
        gateway.capacity.begin_drain()
        await virtual_time.settle()
        assert (call.provider.paths, len(call.connect.requests)) == ([HANG_UP], 1)
        await call.wait_ended()
        return call

    call = virtual_time.run(run())

    assert socket.closes == [(1000, "")]
    assert call.provider.paths == [HANG_UP]
    assert [record.outcome for record in call.call_records] == [Outcome.SHUTDOWN]


def test_working_call_is_hung_up_at_shutdown_when_its_work_has_ended(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        await request_work(socket)
        gateway.capacity.begin_drain()
        socket.deliver(delta())
        await virtual_time.settle()
        assert call.provider.requests == []
        socket.deliver(done())
        await virtual_time.settle()
        assert call.provider.paths == [HANG_UP]

    call = metered(gateway, act)

    assert [(record.basis, record.outcome) for record in call.records] == [(Basis.REPORTED, Outcome.COMPLETED)]
    assert call.provider.paths == [HANG_UP]


def test_working_call_that_a_shutdown_ends_is_an_estimate(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        await request_work(socket)
        await shutdown_takes_too_long(call, socket)

    call = metered(gateway, act)

    assert [(record.basis, record.outcome) for record in call.records] == [(Basis.ESTIMATED, Outcome.SHUTDOWN)]


def test_call_outlives_the_expiry_of_the_session_key_that_made_it(gateway: Gateway) -> None:
    async def act(call: Call, socket: FakeSocket) -> None:
        await asyncio.sleep(3600)
        assert len(gateway.capacity) == 1
        socket.end()

    call = metered(gateway, act, token=seal_session_key(gateway.snapshot))

    assert call.provider.requests == []


# Hanging up.


@pytest.mark.parametrize(
    ("responses", "keys", "statuses"),
    [
        pytest.param([(200, b"")], [harness.OPENAI_KEY], None, id="lasting key first"),
        pytest.param([(401, b""), (200, b"")], [harness.OPENAI_KEY, SESSION_PROVIDER_KEY], None, id="then the other"),
        pytest.param([(404, b"")], [harness.OPENAI_KEY, SESSION_PROVIDER_KEY], None, id="ended already"),
        pytest.param([(500, b"")], [harness.OPENAI_KEY, SESSION_PROVIDER_KEY], [500, 500], id="provider fails"),
        pytest.param([REFUSED, (404, b"")], [harness.OPENAI_KEY, SESSION_PROVIDER_KEY], [0, 404], id="no response"),
    ],
)
def test_call_is_hung_up_with_each_key_until_one_succeeds(
    gateway: Gateway,
    caplog: pytest.LogCaptureFixture,
    responses: list[Any],
    keys: list[str],
    statuses: list[int] | None,
) -> None:
    provider = FakeProvider({HANG_UP: responses})

    metered(gateway, server_shuts_down, provider=provider, token=seal_session_key(gateway.snapshot))

    sent = [request.key_headers[0][1].reveal().removeprefix("Bearer ") for request in provider.requests]
    assert sent == keys
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert [vars(line)["statuses"] for line in errors] == ([] if statuses is None else [statuses])
    assert all(line.getMessage() == "realtime call could not be hung up" for line in errors)


def test_hang_up_does_not_wait_longer_than_for_a_connection(gateway: Gateway) -> None:
    call = metered(gateway, server_shuts_down)

    (request,) = call.provider.requests
    assert request.idle_timeout_s == request.connect_timeout_s == 10
