"""Every state and every end of an HTTP relay, with fakes for the exchange and the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import harness
from tests.gateway.fakes import FakeClient, FakeExchange, FakeUpstream, Gateway, make_snapshot, request_head
from tornado_proxy.domain.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.record import Outcome, RequestRecord
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.http.relay import HttpRelay
from tornado_proxy.metering.request_meter import RequestEnd, RequestMeter
from tornado_proxy.upstream.http.messages import UpstreamResponseHead, make_response_head

BODY = json.dumps({"model": "gpt-4o-mini", "messages": []}).encode()
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
RESPONSE = json.dumps({"id": "chatcmpl-1", "model": "gpt-4o-mini", "choices": [], "usage": USAGE}).encode()
OK = make_response_head(200, "OK", (("Content-Type", "application/json"), ("x-request-id", "req_up")))
STREAM = make_response_head(200, "OK", (("Content-Type", "text/event-stream; charset=utf-8"),))
EVENT = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
NOT_FOUND = make_response_head(404, "Not Found", (("Content-Type", "application/json"),))
GZIPPED = make_response_head(200, "OK", (("Content-Type", "application/json"), ("Content-Encoding", "gzip")))
UNREACHABLE = UpstreamUnreachable("the provider could not be reached: refused", request_sent=False)
TIMED_OUT = UpstreamTimeout("the provider sent nothing for 300 s")
BROKEN = UpstreamError("the connection to the provider broke: reset")

Step = UpstreamResponseHead | bytes | UpstreamError | asyncio.Event


@dataclass(frozen=True)
class Hooks:
    """The functions that a relay calls."""

    object_created: Callable[[str], None]
    response_received: Callable[[UpstreamResponseHead], Awaitable[None]] | None = None
    before_last_byte: Callable[[RequestEnd], None] = lambda _: None


class Run:
    """One relay over fakes, and its results."""

    def __init__(self, gateway: Gateway, steps: Iterable[Step], hooks: Hooks | None = None) -> None:
        #: The ends that the relay expected, and what the client had by then: bytes of the body, an error.
        self.expected: list[tuple[RequestEnd, bytes, bool]] = []
        self.gateway = gateway
        self.client = FakeClient()
        self.exchange = FakeExchange(steps)
        self.upstream = FakeUpstream(self.exchange)
        self.created: list[str] = []
        self._hooks = hooks or Hooks(self.created.append, before_last_byte=self._expect)

    def _expect(self, end: RequestEnd) -> None:
        self.expected.append((end, self.client.body, self.client.error is not None))

    async def start(self) -> None:
        context = self.gateway.admission.authenticate(self.gateway.snapshot, request_head())
        admitted = await self.gateway.admit(context, BODY, "req_1")
        self.meter = RequestMeter(admitted.intent, context.endpoint, admitted.facts, context.tariff)
        self.relay = HttpRelay(admitted, self.meter, self.client, None, self._hooks)

    async def finish(self) -> RequestEnd:
        return await self.relay.run(self.upstream, self.gateway.drains)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


def relayed(gateway: Gateway, *steps: Step, act: Callable[[Run], Any] | None = None) -> tuple[Run, RequestEnd]:
    """Relay a response of `steps`; `act` is called in the middle, when the relay waits for the event among them."""

    async def run() -> tuple[Run, RequestEnd]:
        relay = Run(gateway, steps)
        await relay.start()
        running = asyncio.ensure_future(relay.finish())  # awaited below
        for _ in range(10):
            await asyncio.sleep(0)
        if act is not None:
            act(relay)
        return relay, await running

    return asyncio.run(run())


def test_redirect_to_another_host_is_an_error_without_its_location(gateway: Gateway) -> None:
    redirect = make_response_head(307, "Moved", (("Location", "https://evil.example/v1/chat/completions"),))

    run, end = relayed(gateway, redirect, b"")

    assert run.client.head is None
    assert run.client.error is not None
    assert (run.client.error.status, run.client.error.code, end.outcome) == (
        502,
        "upstream_error",
        Outcome.UPSTREAM_ERROR,
    )
    assert "evil" not in run.client.error.message


def test_location_to_another_host_is_dropped_from_a_paid_response(gateway: Gateway) -> None:
    headers = (("Content-Type", "application/json"), ("Location", "https://evil.example/x"))

    run, end = relayed(gateway, make_response_head(200, "OK", headers), RESPONSE)

    assert run.client.head == (200, "OK", [("Content-Type", "application/json")])
    assert (run.client.body, end.outcome) == (RESPONSE, Outcome.COMPLETED)


def test_redirect_within_the_provider_keeps_the_client_s_prefix(gateway: Gateway) -> None:
    run, _ = relayed(gateway, make_response_head(308, "Moved", (("Location", "/v1/chat/other"),)), b"")

    assert run.client.head == (308, "Moved", [("Location", "/openai/v1/chat/other")])


def leave(run: Run) -> None:
    run.client.leave()
    run.relay.client_left()


def leave_then_complete(release: asyncio.Event) -> Callable[[Run], None]:
    def act(run: Run) -> None:
        leave(run)
        release.set()

    return act


def test_complete_response_is_relayed_metered_and_completed(gateway: Gateway) -> None:
    run, end = relayed(gateway, OK, RESPONSE[:20], RESPONSE[20:])

    record = run.meter.close(end)
    assert (end.outcome, end.status, end.upstream_request_id) == (Outcome.COMPLETED, 200, "req_up")
    assert (run.client.body, run.client.finished, run.client.was_cut) == (RESPONSE, True, False)
    assert run.client.head is not None
    assert run.client.head[:2] == (200, "OK")
    assert record.basis is Basis.REPORTED
    assert [item.quantity for item in record.cost.line_items[:2]] == [10, 5]


def test_provider_key_replaces_the_client_token(gateway: Gateway) -> None:
    run, _ = relayed(gateway, OK, RESPONSE)

    (request,) = run.upstream.requests
    assert [(name, secret.reveal()) for name, secret in request.key_headers] == [
        ("Authorization", f"Bearer {harness.OPENAI_KEY}")
    ]
    assert "authorization" not in {name.lower() for name, _ in request.headers}


def test_stream_holds_nothing_of_its_request_to_the_provider(gateway: Gateway) -> None:
    more = asyncio.Event()
    held: list[tuple[str, object, object, object]] = []

    def look(run: Run) -> None:
        (request,) = run.upstream.requests
        held.append((request.url, request.headers, request.key_headers, request.body))
        more.set()

    stream = make_response_head(200, "OK", (("Content-Type", "text/event-stream"),))
    _, end = relayed(gateway, stream, b"data: [DONE]\n\n", more, act=look)

    assert held == [("", (), (), None)]
    assert end.outcome is Outcome.COMPLETED


def test_provider_key_in_a_response_is_masked_across_chunks(gateway: Gateway) -> None:
    body = b'{"echo":"' + harness.OPENAI_KEY.encode() + b'"}'

    run, _ = relayed(gateway, OK, body[:15], body[15:])

    assert run.client.body == body.replace(harness.OPENAI_KEY.encode(), b"*" * len(harness.OPENAI_KEY))


@pytest.mark.parametrize(
    ("steps", "outcome", "status", "basis", "error"),
    [
        pytest.param([UNREACHABLE], Outcome.UPSTREAM_ERROR, 502, Basis.FREE, UNREACHABLE, id="no connection: free"),
        pytest.param([TIMED_OUT], Outcome.UPSTREAM_ERROR, 504, Basis.UNSETTLED, TIMED_OUT, id="no response: unsettled"),
        pytest.param([OK, BROKEN], Outcome.UPSTREAM_BROKEN, 200, Basis.ESTIMATED, None, id="breaks after the head"),
        pytest.param(
            [OK, RESPONSE[:40], BROKEN], Outcome.UPSTREAM_BROKEN, 200, Basis.ESTIMATED, None, id="breaks in the body"
        ),
        pytest.param([NOT_FOUND, b"{}"], Outcome.COMPLETED, 404, Basis.FREE, None, id="error status is free"),
        pytest.param([GZIPPED, b"\x1f\x8b"], Outcome.COMPLETED, 200, Basis.UNSETTLED, None, id="compressed"),
    ],
)
def test_each_end_of_the_provider_has_its_outcome(
    gateway: Gateway,
    steps: list[Step],
    outcome: Outcome,
    status: int,
    basis: Basis,
    error: UpstreamError | None,
) -> None:
    run, end = relayed(gateway, *steps)

    assert (end.outcome, end.status, run.meter.close(end).basis) == (outcome, status, basis)
    assert run.client.error is error
    assert run.client.was_cut is (outcome is Outcome.UPSTREAM_BROKEN)


def test_fault_of_a_broken_response_is_in_the_record(gateway: Gateway) -> None:
    run, end = relayed(gateway, OK, RESPONSE[:40], BROKEN)

    assert run.meter.close(end).faults[0] == BROKEN.message


@pytest.mark.parametrize("before_head", [True, False], ids=["before the head", "in the body"])
def test_response_is_drained_when_the_client_leaves(gateway: Gateway, before_head: bool) -> None:
    release = asyncio.Event()
    steps = [release, OK, RESPONSE] if before_head else [OK, RESPONSE[:10], release, RESPONSE[10:]]

    run, end = relayed(gateway, *steps, act=leave_then_complete(release))

    record = run.meter.close(end)
    assert (end.outcome, end.status) == (Outcome.CLIENT_CLOSED, 499)
    assert record.basis is Basis.REPORTED
    assert not run.client.finished
    assert len(gateway.drains) == 0


def test_exchange_is_aborted_when_the_client_leaves_and_the_policy_is_cancel() -> None:
    gateway = Gateway(make_snapshot(streams={"on_client_disconnect": "cancel"}))

    run, end = relayed(gateway, OK, RESPONSE[:40], asyncio.Event(), RESPONSE[40:], act=leave)

    assert (end.outcome, end.status) == (Outcome.CLIENT_CLOSED, 499)
    assert run.exchange.abort_reasons[0] == "the client left"
    assert run.meter.close(end).basis is Basis.ESTIMATED


def test_drain_that_exceeds_its_limit_states_the_reason() -> None:
    gateway = Gateway(make_snapshot(streams={"drain_limit_s": 0.01}))

    run, end = relayed(gateway, OK, RESPONSE[:40], asyncio.Event(), RESPONSE[40:], act=leave)

    assert (end.outcome, end.status) == (Outcome.CLIENT_CLOSED, 499)
    assert end.broken_by == "not drained to its end: took more than 0.01 s (streams.drain_limit_s)"
    assert run.meter.close(end).basis is Basis.ESTIMATED


def test_write_that_fails_counts_as_a_client_that_left(gateway: Gateway) -> None:
    release = asyncio.Event()

    def vanish(run: Run) -> None:
        run.client.leave()  # Tornado has not called on_connection_close() yet
        release.set()

    run, end = relayed(gateway, OK, RESPONSE[:10], release, RESPONSE[10:30], RESPONSE[30:], act=vanish)

    assert (end.outcome, end.status) == (Outcome.CLIENT_CLOSED, 499)
    assert run.meter.close(end).basis is Basis.REPORTED


def test_client_that_leaves_after_the_last_byte_has_a_completed_request(gateway: Gateway) -> None:
    async def run() -> RequestEnd:
        relay = Run(gateway, [OK, RESPONSE])
        await relay.start()
        end = await relay.finish()
        relay.relay.client_left()
        return end

    assert asyncio.run(run()).outcome is Outcome.COMPLETED


def test_client_that_has_read_all_may_leave_before_the_provider_ends(gateway: Gateway) -> None:
    release = asyncio.Event()

    def read_all_then_leave(run: Run) -> None:
        run.client.delivered = True
        leave_then_complete(release)(run)

    run, end = relayed(gateway, OK, RESPONSE[:-1], release, RESPONSE[-1:], act=read_all_then_leave)

    assert (end.outcome, end.status) == (Outcome.COMPLETED, 200)
    assert run.meter.close(end).basis is Basis.REPORTED


@pytest.mark.parametrize("before_head", [True, False], ids=["before the head", "in the body"])
def test_shutdown_cuts_the_response_so_that_it_never_looks_complete(gateway: Gateway, before_head: bool) -> None:
    never = asyncio.Event()
    steps = [never, OK] if before_head else [OK, RESPONSE[:40], never, RESPONSE[40:]]

    run, end = relayed(gateway, *steps, act=lambda run: run.relay.end(Outcome.SHUTDOWN))

    assert end.outcome is Outcome.SHUTDOWN
    assert end.status == (None if before_head else 200)
    assert run.client.was_cut
    assert not run.client.finished
    assert run.client.error is None


def test_request_whose_client_left_before_it_was_sent_costs_nothing(gateway: Gateway) -> None:
    async def run() -> tuple[Run, RequestEnd]:
        relay = Run(gateway, [OK, RESPONSE])
        await relay.start()
        relay.relay.client_left()
        return relay, await relay.finish()

    relay, end = asyncio.run(run())

    assert relay.upstream.requests == []
    assert (end.outcome, end.reached_provider, relay.meter.close(end).basis) == (
        Outcome.CLIENT_CLOSED,
        False,
        Basis.FREE,
    )


def sized(body: bytes) -> UpstreamResponseHead:
    return make_response_head(200, "OK", (*OK.headers, ("Content-Length", str(len(body)))))


@pytest.mark.parametrize(
    ("steps", "outcome", "status", "sent"),
    [
        pytest.param([OK, RESPONSE], Outcome.COMPLETED, 200, b"", id="one piece"),
        pytest.param([OK, RESPONSE[:9], RESPONSE[9:]], Outcome.COMPLETED, 200, RESPONSE[:9], id="two pieces"),
        pytest.param(
            [OK, RESPONSE, "wait"], Outcome.COMPLETED, 200, RESPONSE, id="no length: the end is the last byte"
        ),
        pytest.param(
            [sized(RESPONSE), RESPONSE[:9], RESPONSE[9:], "wait"],
            Outcome.COMPLETED,
            200,
            RESPONSE[:9],
            id="declared length: the last piece waits for the end",
        ),
        pytest.param(
            [STREAM, EVENT + EVENT + b"data: [DONE]\n\n"],
            Outcome.COMPLETED,
            200,
            EVENT + EVENT,
            id="stream in one piece: only the last event waits",
        ),
        pytest.param([STREAM, EVENT], Outcome.COMPLETED, 200, b"", id="stream of one event"),
        pytest.param([NOT_FOUND, b"{}"], Outcome.COMPLETED, 404, b"", id="error of the provider"),
        pytest.param([UNREACHABLE], Outcome.UPSTREAM_ERROR, 502, b"", id="error of the proxy"),
    ],
)
def test_record_is_due_before_the_client_has_a_complete_response(
    gateway: Gateway, steps: list[Any], outcome: Outcome, status: int, sent: bytes
) -> None:
    release = asyncio.Event()

    run, end = relayed(gateway, *[release if step == "wait" else step for step in steps], act=lambda run: release.set())

    ((expected, body, had_error),) = run.expected
    assert (expected.outcome, expected.status) == (end.outcome, end.status) == (outcome, status)
    assert (body, had_error) == (sent, False)
    assert run.client.finished is (outcome is Outcome.COMPLETED)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([OK, RESPONSE[:40], BROKEN], id="breaks in the body"),
        pytest.param([sized(RESPONSE), RESPONSE, BROKEN], id="breaks after the declared length"),
    ],
)
def test_record_of_a_broken_response_is_not_written_ahead(gateway: Gateway, steps: list[Step]) -> None:
    run, end = relayed(gateway, *steps)

    assert run.expected == []
    assert end.outcome is Outcome.UPSTREAM_BROKEN
    assert run.client.was_cut
    assert run.client.body != RESPONSE


def test_client_that_leaves_at_the_last_byte_has_the_usage_and_its_own_end(gateway: Gateway) -> None:
    closed: list[RequestRecord] = []

    async def run() -> RequestRecord:
        def leave_at_last_byte(end: RequestEnd) -> None:
            closed.append(relay.meter.close(end))
            relay.client.leave()

        relay = Run(gateway, [OK, RESPONSE], Hooks(lambda _: None, before_last_byte=leave_at_last_byte))
        await relay.start()
        return relay.meter.close(await relay.finish())

    record = asyncio.run(run())

    assert (closed[0].outcome, closed[0].status) == (Outcome.COMPLETED, 200)
    assert (record.outcome, record.status, record.basis) == (Outcome.CLIENT_CLOSED, 499, Basis.REPORTED)
    assert record.cost is closed[0].cost


def test_record_of_a_response_that_the_socket_takes_at_once_is_the_one_that_was_written_ahead(gateway: Gateway) -> None:
    async def run() -> tuple[Run, RequestEnd]:
        relay = Run(gateway, [OK, RESPONSE])
        relay.client.takes_at_once = True
        await relay.start()
        return relay, await relay.finish()

    relay, end = asyncio.run(run())

    ((ahead, body, _),) = relay.expected
    assert (end, body) == (ahead, b"")
    assert (end.outcome, relay.client.body) == (Outcome.COMPLETED, RESPONSE)
    assert relay.meter.close(end) is relay.meter.close(ahead)


def test_created_object_is_announced_once_before_the_end(gateway: Gateway) -> None:
    created: list[str] = []

    async def run() -> None:
        relay = Run(gateway, [OK, b"{", RESPONSE[1:]], Hooks(created.append))
        await relay.start()
        relay.meter = relay.relay._meter = AnnouncingMeter()  # type: ignore[assignment]  # only what run() calls
        await relay.finish()

    asyncio.run(run())

    assert created == ["obj_1"]


class AnnouncingMeter:
    """A meter whose reader names an object from the first chunk on."""

    object_id = "obj_1"

    def response_started(self, head: object) -> None:
        pass

    def feed(self, data: bytes) -> None:
        pass

    def body_complete(self) -> None:
        pass


def test_hook_can_replace_a_good_response_by_an_error(gateway: Gateway) -> None:
    async def refuse(head: UpstreamResponseHead) -> None:
        raise UpstreamError("the call cannot be metered")

    async def run() -> tuple[Run, RequestEnd]:
        relay = Run(gateway, [OK, RESPONSE], Hooks(lambda _: None, refuse))
        await relay.start()
        return relay, await relay.finish()

    relay, end = asyncio.run(run())

    assert (end.outcome, end.status) == (Outcome.UPSTREAM_ERROR, 502)
    assert relay.client.error is not None
    assert relay.client.head is None


STREAM = make_response_head(200, "OK", (("Content-Type", "text/event-stream"),))
CHUNK = b'data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"four"}}]}\n\n'


def test_response_that_ends_with_an_error_is_delivered_whole_and_recorded_as_one(gateway: Gateway) -> None:
    error = b'data: {"error":{"message":"overloaded"}}\n\n'

    run, end = relayed(gateway, STREAM, CHUNK, error)

    record = run.meter.close(end)
    assert (run.client.body, run.client.finished) == (CHUNK + error, True)
    assert (record.outcome, record.status, record.basis) == (Outcome.UPSTREAM_ERROR, 200, Basis.ESTIMATED)
    assert "the response ended with a provider error" in record.faults
    assert run.meter.close(end) == record


def test_client_that_leaves_before_the_error_is_recorded_as_gone(gateway: Gateway) -> None:
    release = asyncio.Event()
    run, end = relayed(
        gateway, STREAM, CHUNK, release, b'data: {"error":{"message":"no"}}\n\n', act=leave_then_complete(release)
    )

    assert run.meter.close(end).outcome is Outcome.CLIENT_CLOSED


# Work that runs on at the provider, which only the id in its response can settle or cancel.

BACKGROUND = json.dumps({"model": "gpt-4o-mini", "input": "hi", "background": True}).encode()
QUEUED = json.dumps({"id": "resp_1", "model": "gpt-4o-mini", "status": "queued"}).encode()
BEGUN = b'event: response.created\ndata: {"type":"response.created","response":' + QUEUED + b"}\n\n"
STOP = Stop("stop_1", StopTarget(harness.PROJECT), "cli:root", datetime(2026, 11, 28, tzinfo=UTC))


class BackgroundRun(Run):
    """The relay of a request for a background response."""

    async def start(self) -> None:
        context = self.gateway.admission.authenticate(self.gateway.snapshot, request_head("/openai/v1/responses"))
        admitted = await self.gateway.admit(context, BACKGROUND, "req_1")
        self.meter = RequestMeter(admitted.intent, context.endpoint, admitted.facts, context.tariff)
        self.relay = HttpRelay(admitted, self.meter, self.client, None, self._hooks)


def begin_work(gateway: Gateway, *steps: Step, act: Callable[[Run], Any]) -> RequestRecord:
    """Relay a response that names background work; `act` is called when the relay waits for an event."""

    async def run() -> RequestRecord:
        relay = BackgroundRun(gateway, steps)
        await relay.start()
        running = asyncio.ensure_future(relay.finish())  # awaited below
        for _ in range(10):
            await asyncio.sleep(0)
        act(relay)
        return relay.meter.close(await running)

    return asyncio.run(run())


@pytest.mark.parametrize("on_leaving", ["drain", "cancel"])
@pytest.mark.parametrize("end", [HttpRelay.client_left, lambda relay: relay.stop(STOP)], ids=["client left", "stop"])
def test_response_is_read_until_it_names_the_work_that_it_begins(
    on_leaving: str, end: Callable[[HttpRelay], None]
) -> None:
    gateway = Gateway(make_snapshot(streams={"on_client_disconnect": on_leaving}))
    release = asyncio.Event()

    def act(run: Run) -> None:
        end(run.relay)
        release.set()

    record = begin_work(gateway, OK, release, QUEUED, act=act)

    assert (record.basis, record.object_id) == (Basis.PENDING, "resp_1")


def test_stop_cuts_the_stream_of_work_that_has_a_name(gateway: Gateway) -> None:
    record = begin_work(gateway, STREAM, BEGUN, asyncio.Event(), act=lambda run: run.relay.stop(STOP))

    assert (record.outcome, record.basis, record.object_id) == (Outcome.PROXY_CLOSED, Basis.PENDING, "resp_1")
