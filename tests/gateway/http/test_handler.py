"""How a request arrives and ends at its handler, with a connection in memory."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests import harness, virtual_time
from tests.gateway.fakes import FakeExchange, FakeUpstream, Gateway, make_project, make_request, make_snapshot
from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.domain.record import Outcome, RequestIntent
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.application import ClientApplication
from tornado_proxy.gateway.http import handler as handler_module
from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.http_server.client_transport import ClientTransport, ConnectionContext
from tornado_proxy.http_server.connection import ClientConnection
from tornado_proxy.http_server.exchange import Exchange
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.server import ClientPortServer
from tornado_proxy.http_server.upgraded_connection import UpgradedConnection
from tornado_proxy.upstream.http.messages import make_response_head

CHAT = "/openai/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o-mini", "messages": []}).encode()
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
RESPONSE = json.dumps({"id": "chatcmpl-1", "model": "gpt-4o-mini", "choices": [], "usage": USAGE}).encode()
OK = make_response_head(200, "OK", (("Content-Type", "application/json"),))
MIB = 1024 * 1024
STOP = Stop("stop_1", StopTarget(harness.PROJECT), "cli:root", datetime(2026, 11, 28, tzinfo=UTC))


class MemoryTransport(asyncio.Transport):
    """The client's connection: keeps the bytes that are written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closed
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self._closed

    def abort(self) -> None:
        self._closed = True

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Owner:
    """The connection of the request; there is no next one."""

    def end_exchange(self, exchange: Exchange) -> None:
        pass

    def rest(self) -> None:
        pass

    def upgrade(self) -> UpgradedConnection:
        raise AssertionError("no request here asks for it")


class Request:
    """A request that arrives at its handler, and the response that its client gets."""

    def __init__(self, gateway: Gateway, steps: Iterable[Any] = (), **changes: Any) -> None:
        members = {"method": "POST", "target": CHAT, "token": harness.mint(), "headers": {}, **changes}
        self.stream = MemoryTransport()
        self.upstream = FakeUpstream(FakeExchange(steps))
        headers = {"Host": "llm.example.com", "Authorization": f"Bearer {members['token']}"}
        headers.update({"Content-Type": "application/json", **members["headers"]})
        self.incoming = make_request(members["target"], *headers.items(), method=members["method"], peer="127.0.0.1")
        self.transport = ClientTransport(self.stream, None, ConnectionContext("127.0.0.1", "http"))
        exchange = Exchange(self.transport, self.incoming, Owner())
        exchange.received = True
        self.handler = ProxyHandler(exchange, gateway.services(self.upstream), BodyTimeouts())

    async def arrive(self, *chunks: bytes) -> None:
        """Let the head and the body arrive, and serve the request."""
        waiting = self.handler.headers_received()
        if waiting is not None:
            await waiting
        for chunk in chunks:
            self.handler.data_received(chunk)
        await self.handler.serve()

    def leave(self) -> None:
        """Close the connection, as a client does that does not wait for the response."""
        self.transport.lose()
        self.handler.client_left()

    @property
    def status(self) -> int:
        return int(self.stream.written.split(b" ", 2)[1])

    @property
    def head(self) -> str:
        return self.stream.written.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        return self.stream.written.partition(b"\r\n\r\n")[2]


def served(gateway: Gateway, steps: Iterable[Any], *chunks: bytes, **changes: Any) -> Request:
    async def run() -> Request:
        request = Request(gateway, steps, **changes)
        await request.arrive(*chunks)
        return request

    return asyncio.run(run())


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


@pytest.mark.parametrize("chunks", [[BODY], [BODY[:5], BODY[5:]]], ids=["one chunk", "two chunks"])
def test_request_is_relayed_and_recorded(gateway: Gateway, chunks: list[bytes]) -> None:
    request = served(gateway, [OK, RESPONSE], *chunks)

    (record,) = gateway.ledger.finished
    assert (request.status, request.body) == (200, RESPONSE)
    assert f"Llm-Proxy-Request-Id: {record.intent.request_id}" in request.head
    assert (record.basis, record.outcome, record.status) == (Basis.REPORTED, Outcome.COMPLETED, 200)
    assert gateway.ledger.begun == [record.intent]
    (sent,) = request.upstream.requests
    assert sent.body is not None
    assert sent.body.read(1000) == BODY
    assert (len(gateway.capacity), list(gateway.capacity)) == (0, [])


def test_streaming_response_holds_neither_its_request_nor_the_headers(gateway: Gateway) -> None:
    release = asyncio.Event()

    async def run() -> tuple[Request, bytes]:
        request = Request(gateway, [OK, RESPONSE[:9], release, RESPONSE[9:]])
        serving = asyncio.ensure_future(request.arrive(BODY))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (request.incoming.headers, request.incoming.lines, request.incoming.body) == ([], {}, b"")
        held = request.body
        release.set()
        await serving
        return request, held

    request, held = asyncio.run(run())

    (record,) = gateway.ledger.finished
    assert held == b"9\r\n" + RESPONSE[:9] + b"\r\n"
    assert (RESPONSE[9:] in request.body, record.outcome) == (True, Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        pytest.param({"token": "not-a-token"}, 401, "invalid_api_key", id="credential"),
        pytest.param({"target": "/openai/v1/unknown"}, 404, "not_found", id="route"),
        pytest.param({"token": harness.mint(models=["openai/gpt-4o"])}, 403, "not_allowed", id="model"),
        pytest.param({"headers": {"Content-Length": str(64 * MIB + 1)}}, 413, "request_too_large", id="length"),
    ],
)
def test_rejected_request_gets_an_error_after_its_body_and_nothing_is_sent(
    gateway: Gateway, changes: dict[str, Any], status: int, code: str
) -> None:
    request = served(gateway, [OK, RESPONSE], BODY, **changes)

    assert (request.status, json.loads(request.body)["error"]["code"]) == (status, code)
    assert (request.upstream.requests, gateway.ledger.begun, gateway.ledger.finished) == ([], [], [])
    assert list(gateway.capacity) == []


@pytest.mark.parametrize(("expect", "early"), [("100-continue", True), ("", False)])
def test_client_that_waits_for_100_continue_is_rejected_before_its_body(
    gateway: Gateway, expect: str, early: bool
) -> None:
    async def run() -> bytes:
        request = Request(gateway, token="not-a-token", headers={"Expect": expect})
        waiting = request.handler.headers_received()
        if waiting is not None:
            await waiting
        return request.stream.written

    assert asyncio.run(run()).startswith(b"HTTP/1.1 401") is early


def test_body_that_grows_above_the_limit_is_rejected() -> None:
    gateway = Gateway(make_snapshot(limits={"max_body_mb": 1}))

    request = served(gateway, [OK, RESPONSE], b"a" * MIB, b"b")

    assert request.status == 413
    assert request.upstream.requests == []


def test_body_above_the_bytes_that_may_arrive_is_rejected_and_dropped_at_once() -> None:
    gateway = Gateway(make_snapshot(limits={"max_arriving_mb_per_caller": 1}))

    async def run() -> Request:
        request = Request(gateway)
        request.handler.headers_received()
        request.handler.data_received(b"a" * MIB)
        assert len(list(gateway.capacity)) == 1
        request.handler.data_received(b"b")
        assert list(gateway.capacity) == []
        await request.handler.serve()
        return request

    request = asyncio.run(run())

    assert (request.status, request.upstream.requests) == (429, [])


def test_body_that_is_read_into_memory_is_limited_like_one_in_chunks() -> None:
    gateway = Gateway(make_snapshot(limits={"max_arriving_mb_per_caller": 1}))

    async def run() -> Request:
        request = Request(gateway)
        request.handler.headers_received()
        request.handler.data_received(b"a" * (MIB - 1))
        for arrived in (1, 2):
            memory = request.handler.find_memory()
            assert memory is not None
            assert len(memory.get_buffer(2)) == 2
            memory.advance(arrived)
            request.handler.body_read(arrived)
        assert list(gateway.capacity) == []
        assert request.handler.find_memory() is None
        await request.handler.serve()
        return request

    request = asyncio.run(run())

    assert (request.status, request.upstream.requests) == (429, [])


def test_body_of_which_little_has_arrived_gets_no_memory(gateway: Gateway) -> None:
    async def run() -> list[bool]:
        request = Request(gateway)
        request.handler.headers_received()
        request.handler.data_received(b"a" * 131_071)
        before = request.handler.find_memory() is None
        request.handler.data_received(b"a")
        return [before, request.handler.find_memory() is None]

    assert asyncio.run(run()) == [True, False]


def test_stopped_body_is_not_read_into_memory(gateway: Gateway) -> None:
    async def run() -> Request:
        request = Request(gateway)
        request.handler.headers_received()
        request.handler.data_received(b"a" * MIB)
        request.handler.stop(STOP)
        assert request.handler.find_memory() is None
        await request.handler.serve()
        return request

    request = asyncio.run(run())

    assert (request.status, request.upstream.requests) == (403, [])


def test_body_is_collected_and_sent_without_a_second_copy(gateway: Gateway) -> None:
    chunk = b" " * (64 * 1024)
    chunks = 320  # 20 MiB

    async def run() -> int:
        request = Request(gateway, [OK, RESPONSE])
        request.handler.headers_received()
        request.handler.data_received(BODY)
        tracemalloc.start()
        try:
            for _ in range(chunks):
                request.handler.data_received(bytes(bytearray(chunk)))  # a new object each, as the socket gives
            await request.handler.serve()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gateway.bodies.close()
        (sent,) = request.upstream.requests
        assert sent.body is not None
        assert sent.body.size == len(BODY) + chunks * len(chunk)
        return peak

    # The buffer has an eighth to spare; a list of chunks that is joined takes twice the body.
    assert asyncio.run(run()) < 1.25 * chunks * len(chunk)


def test_bytes_of_a_body_count_until_it_is_admitted() -> None:
    gateway = Gateway(make_snapshot(limits={"max_arriving_mb_per_caller": 1}))
    held: list[float | None] = []

    async def hold(intent: object) -> None:
        held.append(REGISTRY.get_sample_value("llm_proxy_arriving_bytes"))

    async def run() -> Request:
        request = Request(gateway, [OK, RESPONSE])
        gateway.ledger.begin = hold  # type: ignore[method-assign]  # called when the request is admitted
        await request.arrive(BODY, b" " * 1000)
        return request

    assert asyncio.run(run()).status == 200
    assert held == [len(BODY) + 1000]
    assert REGISTRY.get_sample_value("llm_proxy_arriving_bytes") == 0


def test_request_counts_once_while_its_response_is_relayed(gateway: Gateway) -> None:
    release = asyncio.Event()

    async def run() -> Request:
        request = Request(gateway, [OK, release, RESPONSE])
        serving = asyncio.ensure_future(request.arrive(BODY))  # awaited below
        await virtual_time.settle()
        assert (len(list(gateway.capacity)), len(gateway.capacity)) == (1, 1)
        release.set()
        await serving
        return request

    assert asyncio.run(run()).status == 200
    assert list(gateway.capacity) == []


def test_rejected_body_without_end_is_cut(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "MAX_DISCARDED_BYTES", 10)

    async def run() -> list[bool]:
        request = Request(gateway, token="not-a-token")
        request.handler.headers_received()
        closed = []
        for _ in range(2):
            request.handler.data_received(b"x" * 10)
            closed.append(request.stream.is_closing())
        return closed

    assert asyncio.run(run()) == [False, True]


def test_arriving_request_counts_until_its_client_leaves(gateway: Gateway) -> None:
    async def run() -> None:
        request = Request(gateway)
        request.handler.headers_received()
        assert list(gateway.capacity) == [request.handler]
        gateway.capacity.begin_drain()
        assert not request.stream.is_closing()
        request.handler.on_connection_close()
        assert list(gateway.capacity) == []

    asyncio.run(run())


def test_request_that_has_not_arrived_at_the_end_of_a_shutdown_is_cut(gateway: Gateway) -> None:
    async def run() -> bool:
        request = Request(gateway)
        request.handler.headers_received()
        for arriving in gateway.capacity:
            arriving.end(Outcome.SHUTDOWN)
        return request.stream.is_closing()

    assert asyncio.run(run())


@pytest.mark.parametrize(("token", "status"), [(None, 408), ("not-a-token", 401)])
def test_request_whose_body_stalls_is_rejected(gateway: Gateway, token: str | None, status: int) -> None:
    async def run() -> Request:
        request = Request(gateway, **({} if token is None else {"token": token}))
        request.handler.headers_received()
        request.handler.on_body_timeout()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return request

    request = asyncio.run(run())

    assert request.status == status
    assert list(gateway.capacity) == []


def test_unexpected_error_before_the_response_is_500_and_leaves_a_record(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    request = served(gateway, [ZeroDivisionError("a bug")], BODY)

    (record,) = gateway.ledger.finished
    assert request.status == 500
    assert record.intent.request_id in json.loads(request.body)["error"]["message"]
    assert (record.outcome, record.status) == (Outcome.CRASHED, None)
    assert "request failed" in [line.getMessage() for line in caplog.records]
    assert list(gateway.capacity) == []


def test_unexpected_error_in_the_response_cuts_it(gateway: Gateway) -> None:
    never_complete = asyncio.Event()
    never_complete.set()

    request = served(gateway, [OK, RESPONSE[:10], never_complete, 7], BODY)

    assert request.stream.is_closing()
    assert not request.stream.written.endswith(b"0\r\n\r\n")
    assert [record.outcome for record in gateway.ledger.finished] == [Outcome.CRASHED]


def test_client_that_left_before_its_request_was_admitted_costs_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> Request:
        request = Request(gateway, [OK, RESPONSE])
        begin = gateway.ledger.begin

        async def begin_without_client(intent: RequestIntent) -> None:
            request.leave()
            await begin(intent)

        monkeypatch.setattr(gateway.ledger, "begin", begin_without_client)
        await request.arrive(BODY)
        return request

    request = asyncio.run(run())

    (record,) = gateway.ledger.finished
    assert request.upstream.requests == []
    assert (record.basis, record.outcome) == (Basis.FREE, Outcome.CLIENT_CLOSED)


def test_request_behind_a_closed_connection_is_not_served(gateway: Gateway) -> None:
    async def run() -> None:
        request = Request(gateway, [OK, RESPONSE])
        request.handler.headers_received()
        request.handler.data_received(BODY)
        request.handler.cut()
        await request.handler.serve()

    asyncio.run(run())

    assert gateway.ledger.begun == []
    assert list(gateway.capacity) == []


@pytest.mark.parametrize(
    ("target", "polled"),
    [("/openai/v1/responses/resp_1", ["resp_1"]), ("/openai/v1/models/gpt-4o-mini", [])],
)
def test_object_that_a_client_requests_is_polled_when_the_request_has_ended(target: str, polled: list[str]) -> None:
    gateway = Gateway(make_snapshot(projects=[make_project(allowed_objects=frozenset({"resp_1"}))]))

    served(gateway, [OK, b"{}"], method="GET", target=target)

    assert gateway.polled == polled
    assert len(gateway.ledger.finished) == 1


def test_error_of_the_provider_is_in_its_format_and_recorded(gateway: Gateway) -> None:
    request = served(gateway, [UpstreamError("the connection to the provider broke: reset")], BODY)

    assert (request.status, json.loads(request.body)["error"]["code"]) == (502, "upstream_error")
    assert [record.status for record in gateway.ledger.finished] == [502]


def test_url_in_a_response_leads_to_the_proxy() -> None:
    gateway = Gateway(make_snapshot(projects=[make_project(allowed_objects=frozenset({"b"}))]))
    body = b'{"id":"b","results_url":"https://api.anthropic.com/v1/messages/batches/b/results"}'

    request = served(gateway, [OK, body], method="GET", target="/anthropic/v1/messages/batches/b")

    url = "http://llm.example.com/anthropic/v1/messages/batches/b/results"
    assert json.loads(request.body)["results_url"] == url


def test_served_request_leaves_nothing_to_the_garbage_collector(gateway: Gateway) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: llm\r\nAuthorization: Bearer {harness.mint()}\r\n"
    sent = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY

    async def run() -> int:
        upstream = FakeUpstream(FakeExchange([]))
        application = ClientApplication([], gateway.services(upstream))
        server = ClientPortServer(application, application.body_timeouts, application.make_rejection)
        connection = ClientConnection(server, None, ConnectionContext("127.0.0.1", "http"))
        connection.connection_made(MemoryTransport())
        garbage = 0
        for _ in range(2):  # the first request fills caches
            upstream.exchange = FakeExchange([OK, RESPONSE])
            gc.collect()
            connection.data_received(sent)
            await virtual_time.settle()
            garbage = gc.collect()
        server.stop()
        return garbage

    gc.disable()
    try:
        assert asyncio.run(run()) == 0
    finally:
        gc.enable()
    assert [record.status for record in gateway.ledger.finished] == [200, 200]
