"""Pending requests are polled until their usage is there, and settled once; on a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests import harness, virtual_time
from tests.gateway.fakes import FakeExchange, FakeProvider, Gateway, make_project, make_snapshot
from tests.ledger.memory_ledger import MemoryLedger, MemoryStore
from tests.ledger.sample_records import START, make_intent, make_record
from tornado_proxy.domain.cost import Cost, bill
from tornado_proxy.domain.errors import LedgerUnavailable, UpstreamTimeout
from tornado_proxy.domain.identity import Caller, Secret
from tornado_proxy.domain.record import PendingRequest, Settlement
from tornado_proxy.domain.request import DeferredRatingFacts, RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering import deferred_settlement
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.http.messages import UpstreamRequest

STATE = "GET /v1/responses/resp_1"
BATCH_STATE = "GET /v1/messages/batches/batch_1"
BATCH_RESULTS = f"{BATCH_STATE}/results"
TIMED_OUT = UpstreamTimeout("the provider sent nothing for 600 s")

USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
RESPONSE = {"id": "resp_1", "model": "gpt-4o-mini-2024-07-18", "usage": USAGE}
UNFINISHED = (200, json.dumps({"id": "resp_1", "status": "in_progress", "usage": None}).encode())
FINISHED = (200, json.dumps({**RESPONSE, "status": "completed"}).encode())


def make_result(custom_id: str) -> dict[str, Any]:
    message = {"id": "msg_1", "model": "claude-haiku-4-5", "usage": {"input_tokens": 1000, "output_tokens": 100}}
    return {"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}


RUNNING_BATCH = (200, b'{"id": "batch_1", "processing_status": "in_progress"}')
ENDED_BATCH = (200, b'{"id": "batch_1", "processing_status": "ended"}')
RESULTS = (200, b"\n".join(json.dumps(make_result(name)).encode() for name in ("a", "b")))


class TimedProvider(FakeProvider):
    """A provider that keeps when each request was sent, in seconds of the loop's clock."""

    def __init__(self, responses: Any) -> None:
        super().__init__(responses)
        self.times: list[float] = []
        self.exchanges: list[FakeExchange] = []

    def start(self, request: UpstreamRequest) -> FakeExchange:
        self.times.append(round(asyncio.get_running_loop().time(), 3))
        self.exchanges.append(super().start(request))
        return self.exchanges[-1]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


async def store_pending(
    ledger: MemoryLedger,
    object_id: str = "resp_1",
    *,
    provider: str = "openai",
    endpoint: str = "/v1/responses",
    model: str | None = "gpt-4o-mini",
) -> None:
    """Store the record of a request whose usage the provider reports later; its id is that of the object."""
    intent = make_intent(
        f"req_{object_id}", provider=provider, endpoint=endpoint, model_requested=model, caller=Caller(harness.PROJECT)
    )
    facts = DeferredRatingFacts()
    await ledger.begin(intent)
    await ledger.finish(
        make_record(intent, basis=Basis.PENDING, cost=bill((), Decimal(0)), object_id=object_id, deferred_facts=facts)
    )


async def store_batch(ledger: MemoryLedger) -> None:
    await store_pending(ledger, "batch_1", provider="anthropic", endpoint="/v1/messages/batches", model=None)


def settled(
    gateway: Gateway,
    provider: FakeProvider,
    *,
    seconds: float = 10,
    store: Callable[[MemoryLedger], Coroutine[Any, Any, None]] = store_pending,
    act: Callable[[DeferredSettlement], None] | None = None,
) -> list[Settlement]:
    """Settle for `seconds`; then call `act`, if any, without a further second.  Return the settlements."""

    async def run() -> list[Settlement]:
        await store(gateway.ledger)
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        running = asyncio.ensure_future(settlement.run())  # cancelled below
        await asyncio.sleep(seconds)
        if act is not None:
            act(settlement)
        await virtual_time.settle()
        # An error would have ended run(): then it is done, and not cancelled.
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        return gateway.ledger.settled

    return virtual_time.run(run())


# Finished.


def test_finished_response_is_settled_once_with_its_usage_and_its_price(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    provider = TimedProvider({STATE: [FINISHED]})

    (settlement,) = settled(gateway, provider)

    # 1000 x 0.15 and 100 x 0.60 per million, and 5 % of that.
    assert (settlement.cost.subtotal, settlement.cost.total) == (Decimal("0.00021"), Decimal("0.0002205"))
    assert (settlement.request_id, settlement.basis) == ("req_resp_1", Basis.REPORTED)
    assert (settlement.model, settlement.faults) == ("gpt-4o-mini-2024-07-18", ())
    assert json.loads(settlement.usage or "") == USAGE
    assert provider.times == [0]
    (line,) = caplog.records
    assert (line.getMessage(), vars(line)["total_usd"]) == ("request settled", "0.000220500000")


def test_poll_is_a_request_of_the_proxy_with_the_server_s_key(gateway: Gateway) -> None:
    provider = FakeProvider({STATE: [FINISHED]})

    settled(gateway, provider)

    (request,) = provider.requests
    assert [(name, key.reveal()) for name, key in request.key_headers] == [
        ("Authorization", f"Bearer {harness.OPENAI_KEY}")
    ]
    assert request.headers == (("Accept", "application/json"), ("Accept-Encoding", "identity"))
    assert request.body is None


@pytest.mark.parametrize(
    ("projects", "key"),
    [
        pytest.param(None, harness.ANTHROPIC_KEY, id="server's key"),
        pytest.param([make_project(provider_keys={"anthropic": Secret("sk-own")})], "sk-own", id="project's own key"),
        pytest.param([], harness.ANTHROPIC_KEY, id="project is gone"),
    ],
)
def test_results_are_read_after_the_batch_has_ended(projects: Any, key: str) -> None:
    provider = FakeProvider({BATCH_STATE: [RUNNING_BATCH, ENDED_BATCH], BATCH_RESULTS: [RESULTS]})

    (settlement,) = settled(Gateway(make_snapshot(projects=projects)), provider, store=store_batch)

    # Twice 1000 x 0.50 and 100 x 2.50 per million, at the batch price.
    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.0015"))
    assert len([item for item in settlement.cost.line_items if item.type == "input_tokens"]) == 1
    assert provider.paths == [BATCH_STATE, BATCH_STATE, BATCH_RESULTS]
    assert {request.key_headers[0][1].reveal() for request in provider.requests} == {key}


def test_results_that_are_not_available_yet_are_requested_again(gateway: Gateway) -> None:
    provider = TimedProvider({BATCH_STATE: [ENDED_BATCH], BATCH_RESULTS: [(404, b"{}"), RESULTS]})

    (settlement,) = settled(gateway, provider, store=store_batch)

    assert settlement.basis is Basis.REPORTED
    assert provider.times == [0, 0, 1, 1]
    assert provider.exchanges[1].abort_reasons == ["the results are not available yet"]


@pytest.mark.parametrize("status", [404, 410])
def test_object_that_the_provider_no_longer_has_is_unsettled(gateway: Gateway, status: int) -> None:
    provider = TimedProvider({STATE: [(status, b"{}")]})

    (settlement,) = settled(gateway, provider)

    assert (settlement.basis, settlement.cost.total) == (Basis.UNSETTLED, 0)
    assert settlement.faults == ("the provider no longer has the object",)
    assert settlement.model == "gpt-4o-mini"
    assert provider.times == [0]


def test_usage_of_a_model_without_a_price_is_unsettled_and_kept(gateway: Gateway) -> None:
    body = json.dumps({**RESPONSE, "model": "gpt-next", "status": "completed"}).encode()

    async def store(ledger: MemoryLedger) -> None:
        await store_pending(ledger, model="gpt-next")

    (settlement,) = settled(gateway, FakeProvider({STATE: [(200, body)]}), store=store)

    assert settlement.basis is Basis.UNSETTLED
    assert settlement.faults
    assert json.loads(settlement.usage or "") == USAGE


def test_prices_are_those_of_the_time_of_the_request() -> None:
    times: list[datetime] = []

    class RecordingTariff(Tariff):
        def rate(self, report: UsageReport, facts: RequestFacts, at: datetime) -> Cost:
            times.append(at)
            return super().rate(report, facts, at)

    settled(Gateway(replace_tariff(make_snapshot(), RecordingTariff)), FakeProvider({STATE: [FINISHED]}))

    assert times == [START]


def replace_tariff(snapshot: Snapshot, kind: type[Tariff]) -> Snapshot:
    standard = snapshot.tariffs["openai"]
    members = {field.name: getattr(standard, field.name) for field in fields(standard)}
    return replace(snapshot, tariffs={**snapshot.tariffs, "openai": kind(**members)})


def test_failure_of_a_price_does_not_stop_the_settlement_of_other_requests(caplog: pytest.LogCaptureFixture) -> None:
    class FailingTariff(Tariff):
        def rate(self, report: UsageReport, facts: RequestFacts, at: datetime) -> Cost:
            raise ArithmeticError("in the tariff")

    async def store_two(ledger: MemoryLedger) -> None:
        await store_pending(ledger)
        await store_batch(ledger)

    before = REGISTRY.get_sample_value("llm_proxy_task_failures_total", {"task": "settlement"}) or 0
    gateway = Gateway(replace_tariff(make_snapshot(), FailingTariff))
    provider = TimedProvider({STATE: [FINISHED], BATCH_STATE: [ENDED_BATCH], BATCH_RESULTS: [RESULTS]})

    settlements = settled(gateway, provider, seconds=5, store=store_two)

    assert [settlement.request_id for settlement in settlements] == ["req_batch_1"]
    assert provider.times == [0, 0, 0, 1, 3]
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert [line.getMessage() for line in errors] == ["pending request could not be settled"] * 3
    assert {vars(line)["request_id"] for line in errors} == {"req_resp_1"}
    assert REGISTRY.get_sample_value("llm_proxy_task_failures_total", {"task": "settlement"}) == before + 3


def test_settlement_is_logged_when_it_is_durable(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def store(ledger: MemoryLedger) -> None:
        await store_pending(ledger)
        ledger.fail("the disk is full")

    def recover(settlement: DeferredSettlement) -> None:
        assert caplog.records == []
        gateway.ledger.recover()

    provider = TimedProvider({STATE: [FINISHED]})
    settlements = settled(gateway, provider, store=store, act=recover)

    assert [line.getMessage() for line in caplog.records] == ["request settled"]
    assert len(settlements) == len(provider.times) == 1


# Unfinished.


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(UNFINISHED, id="unfinished"),
        pytest.param((500, b"{}"), id="error status"),
        pytest.param((200, b"no JSON"), id="not readable"),
        pytest.param(TIMED_OUT, id="no response"),
    ],
)
def test_request_without_usage_is_polled_less_and_less_often(gateway: Gateway, response: Any) -> None:
    provider = TimedProvider({STATE: [response]})

    assert settled(gateway, provider, seconds=150) == []

    # Waits of 1, 1.5, 2.25 s and so on, up to the 30 s of this endpoint, rounded up to the seconds of the rounds.
    assert provider.times == [0, 1, 3, 6, 10, 16, 24, 36, 54, 80, 110, 140]


def test_response_that_finishes_later_is_settled(gateway: Gateway) -> None:
    provider = TimedProvider({STATE: [UNFINISHED, TIMED_OUT, UNFINISHED, FINISHED]})

    (settlement,) = settled(gateway, provider, seconds=60)

    assert settlement.basis is Basis.REPORTED
    assert provider.times == [0, 1, 3, 6]


def test_failed_poll_is_logged_and_does_not_stop_the_others(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    async def store_two(ledger: MemoryLedger) -> None:
        await store_pending(ledger, "resp_0")
        await store_pending(ledger, "resp_1")

    provider = FakeProvider({"GET /v1/responses/resp_0": [TIMED_OUT], STATE: [FINISHED]})

    settlements = settled(gateway, provider, seconds=0.5, store=store_two)

    assert [settlement.request_id for settlement in settlements] == ["req_resp_1"]
    (warning,) = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert warning.getMessage() == "pending request could not be polled"
    assert vars(warning)["reason"] == TIMED_OUT.message


def test_request_to_a_provider_without_configuration_waits(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(make_snapshot(providers={}))
    provider = FakeProvider({})

    assert settled(gateway, provider, seconds=0.5) == []

    assert provider.requests == []
    assert "add providers.openai" in vars(caplog.records[0])["reason"]


def test_request_to_an_endpoint_that_defers_no_usage_is_left_alone(gateway: Gateway) -> None:
    async def store_two(ledger: MemoryLedger) -> None:
        await store_pending(ledger, endpoint="/v1/chat/completions")
        await store_pending(ledger, "resp_2", endpoint="/v1/removed")

    provider = FakeProvider({})

    assert settled(gateway, provider, store=store_two) == []
    assert provider.requests == []


def test_state_above_the_limit_is_not_read_to_its_end(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred_settlement, "MAX_STATE_BYTES", len(FINISHED[1]) - 1)
    provider = TimedProvider({STATE: [FINISHED]})

    assert settled(gateway, provider, seconds=0.5) == []

    assert provider.exchanges[0].abort_reasons == ["the state of a pending request is too large"]


# poll_now


@pytest.mark.parametrize(("object_id", "polled_at"), [("resp_1", [60]), ("resp_of_another", [])])
def test_object_that_a_client_fetches_is_polled_at_once(
    gateway: Gateway, object_id: str, polled_at: list[float]
) -> None:
    provider = TimedProvider({STATE: [UNFINISHED]})

    settled(gateway, provider, seconds=60, act=lambda settlement: settlement.poll_now(object_id))

    assert provider.times == [0, 1, 3, 6, 10, 16, 24, 36, 54, *polled_at]


def test_object_is_polled_once_for_each_fetch(gateway: Gateway) -> None:
    provider = TimedProvider({STATE: [UNFINISHED]})

    async def run() -> None:
        await store_pending(gateway.ledger)
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        running = asyncio.ensure_future(settlement.run())  # cancelled below
        await asyncio.sleep(60.5)
        settlement.poll_now("resp_1")
        await asyncio.sleep(5)
        running.cancel()

    virtual_time.run(run())

    assert provider.times == [0, 1, 3, 6, 10, 16, 24, 36, 54, 60.5]


# Restarts, several processes, and a ledger that fails.


def test_restart_polls_what_the_ledger_holds(gateway: Gateway) -> None:
    settled(gateway, FakeProvider({STATE: [UNFINISHED]}))
    restarted = Gateway(gateway.snapshot, MemoryLedger(gateway.ledger.store))

    async def nothing(ledger: MemoryLedger) -> None:
        pass

    (settlement,) = settled(restarted, TimedProvider({STATE: [FINISHED]}), store=nothing)

    assert settlement.request_id == "req_resp_1"


def test_first_of_two_settlements_holds() -> None:
    store, snapshot = MemoryStore(), make_snapshot()
    processes = [Gateway(snapshot, MemoryLedger(store)) for _ in range(2)]
    bodies = [json.dumps({**RESPONSE, "model": model, "status": "completed"}) for model in ("gpt-4o-mini", "gpt-4o")]
    providers = [FakeProvider({STATE: [(200, body.encode())]}) for body in bodies]

    async def run() -> None:
        await store_pending(processes[0].ledger)
        running = [
            asyncio.ensure_future(DeferredSettlement(process.snapshots, provider, process.ledger).run())  # type: ignore[arg-type]
            for process, provider in zip(processes, providers, strict=True)
        ]
        await asyncio.sleep(5)
        for task in running:
            task.cancel()

    virtual_time.run(run())

    assert [len(process.ledger.settled) for process in processes] == [1, 1]
    assert store.settlements == {"req_resp_1": processes[0].ledger.settled[0]}


def test_settlement_goes_on_after_the_ledger_has_failed(gateway: Gateway) -> None:
    failures = [LedgerUnavailable("the database is away"), LedgerUnavailable("the database is away")]
    read = gateway.ledger.pending_requests

    async def fail_twice(limit: int) -> list[PendingRequest]:
        if failures:
            raise failures.pop()
        return await read(limit)

    gateway.ledger.pending_requests = fail_twice  # type: ignore[method-assign]
    provider = TimedProvider({STATE: [FINISHED]})

    assert len(settled(gateway, provider)) == 1
    assert provider.times == [2]
