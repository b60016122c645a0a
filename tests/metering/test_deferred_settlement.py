"""Pending requests are polled until their usage is there, and settled once; on a clock that jumps."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests import harness, virtual_time
from tests.gateway.fakes import PROVIDER_URL, FakeExchange, FakeProvider, Gateway, make_project, make_snapshot, own_keys
from tests.ledger.memory_ledger import MemoryLedger, MemoryStore
from tests.ledger.sample_records import START, make_intent, make_record
from tornado_proxy.domain.cost import BillRates
from tornado_proxy.domain.errors import LedgerUnavailable, UpstreamTimeout, UsagePending
from tornado_proxy.domain.identity import Caller, KeyId, Secret, fingerprint_key
from tornado_proxy.domain.record import PendingRequest, Settlement
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering import deferred_fetch, deferred_settlement
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.observability import metrics
from tornado_proxy.pricing.book.calculator import bill
from tornado_proxy.pricing.book.price_book import Charge, Tariff
from tornado_proxy.providers.contract import DeferredUsage, ResponseHead
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.providers.route_table import RouteTable
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.http.messages import UpstreamRequest

STATE = "GET /v1/responses/resp_1"
BATCH_STATE = "GET /v1/messages/batches/batch_1"
BATCH_RESULTS = f"{BATCH_STATE}/results"
TIMED_OUT = UpstreamTimeout("the provider sent nothing for 600 s")

NO_DEFERRED_FACTS = DeferredRatingFacts()


def find_deferred(provider: str, path: str) -> DeferredUsage:
    endpoint = RouteTable(PROVIDERS).find_http_endpoint(provider, "POST", path)
    assert endpoint is not None
    assert endpoint.deferred_usage is not None
    return endpoint.deferred_usage


RESPONSES = find_deferred("openai", "/v1/responses")
BATCHES = find_deferred("anthropic", "/v1/messages/batches")

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


class SilentProvider(FakeProvider):
    """A provider that never responds to requests for paths that start with `silent`."""

    def __init__(self, responses: Any, *, silent: str) -> None:
        super().__init__(responses)
        self._silent = PROVIDER_URL + silent

    def start(self, request: UpstreamRequest) -> FakeExchange:
        if not request.url.startswith(self._silent):
            return super().start(request)
        self.requests.append(request)
        return FakeExchange([asyncio.Event()])


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
    facts: DeferredRatingFacts = NO_DEFERRED_FACTS,
    started_at: datetime = START,
) -> None:
    """Store the record of a request whose usage the provider reports later; its id is that of the object."""
    intent = make_intent(
        f"req_{object_id}",
        provider=provider,
        endpoint=endpoint,
        model_requested=model,
        caller=Caller(harness.PROJECT),
        started_at=started_at,
    )
    await ledger.begin(intent)
    await ledger.finish(
        make_record(intent, basis=Basis.PENDING, cost=bill((), Decimal(0)), object_id=object_id, deferred_facts=facts)
    )


async def store_batch(ledger: MemoryLedger) -> None:
    await store_pending(ledger, "batch_1", provider="anthropic", endpoint="/v1/messages/batches", model=None)


@pytest.fixture
def rounds_of_30_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for due polls every 30 s instead of every second, for tests that last hours on the loop's clock."""
    monkeypatch.setattr(deferred_settlement, "POLL_INTERVAL_S", 30.0)


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
        pytest.param([make_project(providers=own_keys(anthropic="sk-own"))], "sk-own", id="project's own key"),
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
        def charge(self, report: UsageReport, model: str | None, at: datetime) -> Charge:
            times.append(at)
            return super().charge(report, model, at)

    settled(Gateway(replace_tariff(make_snapshot(), RecordingTariff)), FakeProvider({STATE: [FINISHED]}))

    assert times == [START]


def test_surcharge_discount_and_region_are_those_with_which_the_request_began() -> None:
    rates = BillRates(surcharge=Decimal("0.1"), discount=Decimal("0.125"))
    facts = DeferredRatingFacts(rates=rates, provider_region="eu")

    async def store(ledger: MemoryLedger) -> None:
        await store_pending(ledger, model="gpt-5.4", facts=facts)

    body = json.dumps({**RESPONSE, "model": "gpt-5.4", "status": "completed"}).encode()
    # The present configuration has a surcharge of 5 %, no discount and no region.
    (settlement,) = settled(Gateway(make_snapshot()), FakeProvider({STATE: [(200, body)]}), store=store)

    # 1000 x 2.50 and 100 x 15 per million, each x 1.1 in a region; 12.5 % less; and 10 % of that.
    assert (settlement.cost.subtotal, settlement.cost.total) == (Decimal("0.00385"), Decimal("0.004235"))


def replace_tariff(snapshot: Snapshot, kind: type[Tariff]) -> Snapshot:
    standard = snapshot.tariffs["openai"]
    members = {field.name: getattr(standard, field.name) for field in fields(standard)}
    return replace(snapshot, tariffs={**snapshot.tariffs, "openai": kind(**members)})


def test_failure_of_a_price_does_not_stop_the_settlement_of_other_requests(caplog: pytest.LogCaptureFixture) -> None:
    class FailingTariff(Tariff):
        def charge(self, report: UsageReport, model: str | None, at: datetime) -> Charge:
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
    monkeypatch.setattr(deferred_fetch, "MAX_STATE_BYTES", len(FINISHED[1]) - 1)
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


# Usage that is missing.


@pytest.mark.parametrize("status", [404, 410])
def test_object_that_is_not_found_at_first_is_settled_when_it_is(gateway: Gateway, status: int) -> None:
    provider = TimedProvider({STATE: [(status, b"{}"), (status, b"{}"), FINISHED]})

    (settlement,) = settled(gateway, provider)

    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.00021"))
    assert provider.times == [0, 1, 3]


@pytest.mark.usefixtures("rounds_of_30_s")
def test_object_that_is_not_found_for_hours_is_shown_as_unsettled_and_settled_later(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TimedProvider({STATE: [(404, b"{}")] * 51 + [FINISHED]})

    given_up, settlement = settled(gateway, provider, seconds=31 * 3600)

    assert (given_up.basis, given_up.final, given_up.cost.total) == (Basis.UNSETTLED, False, 0)
    assert given_up.faults == ("the provider does not find the object (status 404)",)
    assert (settlement.basis, settlement.final) == (Basis.REPORTED, True)
    # Every ten minutes for six hours, then once a day.
    assert provider.times[-3:] == [21_390, 21_990, 108_390]
    (line,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert (line.getMessage(), vars(line)["request_id"]) == ("pending request given up", "req_resp_1")


@pytest.mark.usefixtures("rounds_of_30_s")
def test_output_that_has_passed_is_estimated_if_the_object_is_never_found(gateway: Gateway) -> None:
    async def store(ledger: MemoryLedger) -> None:
        await store_pending(ledger, facts=DeferredRatingFacts(body_bytes=4000, output_bytes=20_000))

    (settlement,) = settled(gateway, FakeProvider({STATE: [(404, b"{}")]}), seconds=7 * 3600, store=store)

    # 1000 tokens x 0.15 and 5000 x 0.60 per million.
    assert (settlement.basis, settlement.cost.subtotal) == (Basis.ESTIMATED, Decimal("0.00315"))
    assert (settlement.final, settlement.estimate_method) == (True, "utf8_bytes_div_4")


def make_ended(**counts: int) -> tuple[int, bytes]:
    return 200, json.dumps({"id": "batch_1", "processing_status": "ended", "request_counts": counts}).encode()


def test_results_with_fewer_lines_than_the_batch_states_are_requested_again(gateway: Gateway) -> None:
    one_line = (200, json.dumps(make_result("a")).encode())
    ended = make_ended(processing=0, succeeded=2, errored=0, canceled=0, expired=0)
    provider = TimedProvider({BATCH_STATE: [ended], BATCH_RESULTS: [(200, b""), one_line, RESULTS]})

    (settlement,) = settled(gateway, provider, store=store_batch)

    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.0015"))
    assert provider.times == [0, 0, 1, 1, 3, 3]


@pytest.mark.usefixtures("rounds_of_30_s")
def test_results_that_stay_incomplete_are_unsettled_with_the_counts(gateway: Gateway) -> None:
    one_line = (200, json.dumps(make_result("a")).encode())
    ended = make_ended(processing=0, succeeded=3, errored=1, canceled=0, expired=0)
    provider = FakeProvider({BATCH_STATE: [ended], BATCH_RESULTS: [one_line]})

    (settlement,) = settled(gateway, provider, store=store_batch, seconds=7 * 3600)

    assert (settlement.basis, settlement.final) == (Basis.UNSETTLED, False)
    assert settlement.cost.subtotal == Decimal("0.00075")
    assert settlement.faults == (
        "the batch states 3 succeeded, 1 errored, 0 canceled, 0 expired; its results have 1 lines, 1 of them succeeded",
    )


# The key that made the request.

OWN_KEY = Secret("sk-of-the-project")


def store_with_key(key: Secret) -> Callable[[MemoryLedger], Coroutine[Any, Any, None]]:
    async def store(ledger: MemoryLedger) -> None:
        await store_pending(ledger, facts=DeferredRatingFacts(made_with=KeyId("", fingerprint_key(key))))

    return store


@pytest.mark.parametrize(
    ("made_with", "projects"),
    [
        pytest.param(
            Secret(harness.OPENAI_KEY), [make_project(providers=own_keys(openai=OWN_KEY.reveal()))], id="own key later"
        ),
        pytest.param(OWN_KEY, [make_project(providers=own_keys(openai=OWN_KEY.reveal()))], id="own key"),
        pytest.param(
            OWN_KEY, [make_project(id="other", providers=own_keys(openai=OWN_KEY.reveal()))], id="key of a new project"
        ),
    ],
)
def test_request_is_settled_with_the_key_that_made_it(made_with: Secret, projects: list[Any]) -> None:
    provider = FakeProvider({STATE: [FINISHED]})

    (settlement,) = settled(Gateway(make_snapshot(projects=projects)), provider, store=store_with_key(made_with))

    assert settlement.basis is Basis.REPORTED
    assert [request.key_headers[0][1].reveal() for request in provider.requests] == [f"Bearer {made_with.reveal()}"]


@pytest.mark.parametrize("projects", [pytest.param(None, id="key removed"), pytest.param([], id="project removed")])
def test_request_whose_key_is_not_configured_stays_pending_and_is_named(
    projects: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider = FakeProvider({})

    assert settled(Gateway(make_snapshot(projects=projects)), provider, store=store_with_key(OWN_KEY)) == []

    assert provider.requests == []
    assert metrics.PENDING_REQUESTS.labels("no_key")._value.get() == 1
    reason = vars(caplog.records[0])["reason"]
    assert fingerprint_key(OWN_KEY) in reason
    assert OWN_KEY.reveal() not in caplog.text


# Many requests at the same time.


def test_requests_that_never_end_delay_none_behind_them(gateway: Gateway) -> None:
    names = [f"resp_{number:03}" for number in range(600)]

    async def store(ledger: MemoryLedger) -> None:
        for name in names:
            await store_pending(ledger, name)
        await store_pending(ledger, "resp_last")

    states = {f"GET /v1/responses/{name}": [UNFINISHED] for name in names}
    provider = FakeProvider({**states, "GET /v1/responses/resp_last": [UNFINISHED, FINISHED]})

    (settlement,) = settled(gateway, provider, store=store)

    assert settlement.request_id == "req_resp_last"


def test_provider_that_never_responds_delays_no_other_provider(gateway: Gateway) -> None:
    names = [f"resp_{number}" for number in range(20)]

    async def store(ledger: MemoryLedger) -> None:
        for name in names:
            await store_pending(ledger, name)
        await store_batch(ledger)

    silent = SilentProvider({BATCH_STATE: [ENDED_BATCH], BATCH_RESULTS: [RESULTS]}, silent="/v1/responses/")

    (settlement,) = settled(gateway, silent, store=store, seconds=2)

    assert settlement.request_id == "req_batch_1"
    assert len([path for path in silent.paths if "/v1/responses/" in path]) == 8


def test_fetch_by_a_client_goes_before_requests_that_hang(gateway: Gateway) -> None:
    names = [f"resp_0{number}" for number in range(20)]

    async def store(ledger: MemoryLedger) -> None:
        for name in names:
            await store_pending(ledger, name)
        await store_pending(ledger, "resp_1")

    silent = SilentProvider({STATE: [FINISHED]}, silent="/v1/responses/resp_0")

    (settlement,) = settled(gateway, silent, store=store, seconds=5, act=lambda settler: settler.poll_now("resp_1"))

    assert settlement.request_id == "req_resp_1"


def test_poll_without_a_response_ends_after_half_a_minute(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    silent = SilentProvider({}, silent="/v1/responses/")

    assert settled(gateway, silent, seconds=32) == []

    assert len(silent.paths) == 2
    assert vars(caplog.records[0])["reason"] == "the provider sent no state of a pending request for 30 s"


# Responses that pass to clients, and deletes.


def delete(gateway: Gateway, provider: FakeProvider, *, act: Callable[[DeferredSettlement], None] | None = None) -> Any:
    """Settle a pending response as a client's DELETE does; return the settlements, or the refusal."""

    async def run() -> Any:
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        if act is not None:
            act(settlement)
        try:
            await settlement.settle_before_delete("openai", "resp_1", RESPONSES, harness.PROJECT)
        except UsagePending as error:
            return error.message
        return gateway.ledger.settled

    async def store_and_run() -> Any:
        await store_pending(gateway.ledger, facts=DeferredRatingFacts(body_bytes=4000))
        return await run()

    return virtual_time.run(store_and_run())


CANCELLED = {"id": "resp_1", "model": "gpt-4o-mini", "status": "cancelled", "usage": None}


def test_finished_response_is_settled_before_it_is_deleted(gateway: Gateway) -> None:
    provider = FakeProvider({STATE: [FINISHED]})

    (settlement,) = delete(gateway, provider)

    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.00021"))


def test_container_of_a_background_response_is_charged_with_its_settlement(gateway: Gateway) -> None:
    run = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"}
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
    state = {**RESPONSE, "status": "completed", "tools": tools, "output": [run]}
    provider = FakeProvider({STATE: [(200, json.dumps(state).encode())]})

    # Containers are charged by the minute since June.
    store = functools.partial(store_pending, started_at=datetime(2026, 11, 28, tzinfo=UTC))

    (settlement,) = settled(gateway, provider, store=store)

    time = settlement.container_time
    assert time is not None
    # 0.00021 for its tokens, and five minutes at 0.0015.
    assert (settlement.basis, settlement.cost.subtotal) == (Basis.ESTIMATED, Decimal("0.00771"))
    assert (time.provider, time.ended_at) == ("openai", settlement.settled_at)
    (use,) = time.uses
    assert use.price is not None
    assert (use.container_id, use.price.unit_price, use.price.minimum_s) == ("cntr_1", Decimal("0.0015"), 300)


@pytest.mark.parametrize(
    ("cancelled", "basis", "cost"),
    [
        pytest.param({**CANCELLED, "usage": USAGE}, Basis.REPORTED, "0.00021", id="usage is stated"),
        # 1000 tokens x 0.15, and 10 x 0.60 of output.
        pytest.param(
            {**CANCELLED, "output": [{"type": "message", "content": [{"type": "output_text", "text": "a" * 40}]}]},
            Basis.ESTIMATED,
            "0.000156",
            id="by the output",
        ),
        pytest.param(CANCELLED, Basis.ESTIMATED, "0.00015", id="no output"),
    ],
)
def test_running_response_is_cancelled_and_settled_before_it_is_deleted(
    gateway: Gateway, cancelled: dict[str, Any], basis: Basis, cost: str
) -> None:
    cancel = "POST /v1/responses/resp_1/cancel"
    provider = FakeProvider({STATE: [UNFINISHED], cancel: [(200, json.dumps(cancelled).encode())]})

    (settlement,) = delete(gateway, provider)

    assert (settlement.basis, settlement.cost.subtotal) == (basis, Decimal(cost))
    assert provider.paths == [STATE, cancel]


def test_response_whose_usage_cannot_be_fetched_is_not_deleted(gateway: Gateway) -> None:
    assert delete(gateway, FakeProvider({STATE: [TIMED_OUT]})) == (
        "the usage of resp_1 cannot be fetched (the provider sent nothing for 600 s); try again"
    )


def test_response_is_not_deleted_while_its_settlement_cannot_be_stored(gateway: Gateway) -> None:
    provider = FakeProvider({STATE: [FINISHED]})

    refusal = delete(gateway, provider, act=lambda _: gateway.ledger.fail("the disk is full"))

    assert refusal == "the usage of resp_1 cannot be stored now; try again"


def test_background_response_is_not_deleted_while_the_request_that_creates_it_streams(gateway: Gateway) -> None:
    provider = FakeProvider({})

    async def run() -> None:
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        settlement.work_streams("openai", "resp_1", streaming=True)
        with pytest.raises(UsagePending, match="resp_1 still streams; delete it when its stream has ended"):
            await settlement.settle_before_delete("openai", "resp_1", RESPONSES, harness.PROJECT)
        settlement.work_streams("openai", "resp_1", streaming=False)
        await settlement.settle_before_delete("openai", "resp_1", RESPONSES, harness.PROJECT)

    virtual_time.run(run())

    assert provider.requests == []


def test_response_that_the_provider_does_not_find_may_be_deleted(gateway: Gateway) -> None:
    assert delete(gateway, FakeProvider({STATE: [(404, b"{}")]})) == []


def test_batch_that_runs_is_not_deleted(gateway: Gateway) -> None:
    async def run() -> None:
        await store_batch(gateway.ledger)
        provider = FakeProvider({BATCH_STATE: [RUNNING_BATCH]})
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        with pytest.raises(UsagePending, match="batch_1 has not ended; cancel it"):
            await settlement.settle_before_delete("anthropic", "batch_1", BATCHES, harness.PROJECT)

    virtual_time.run(run())


def test_batch_is_settled_before_it_is_deleted(gateway: Gateway) -> None:
    async def run() -> list[Settlement]:
        await store_batch(gateway.ledger)
        provider = FakeProvider({BATCH_STATE: [ENDED_BATCH], BATCH_RESULTS: [RESULTS]})
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        await settlement.settle_before_delete("anthropic", "batch_1", BATCHES, harness.PROJECT)
        await settlement.settle_before_delete("anthropic", "batch_1", BATCHES, harness.PROJECT)
        return gateway.ledger.settled

    (settlement,) = virtual_time.run(run())

    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.0015"))


def pass_by(gateway: Gateway, *responses: tuple[str, bytes], state: Any = UNFINISHED) -> list[Settlement]:
    """Let responses (media type, body) to requests by id pass to a client; return the settlements a second later."""

    async def run() -> list[Settlement]:
        await store_pending(gateway.ledger, facts=DeferredRatingFacts(body_bytes=4000))
        provider = FakeProvider({STATE: [UNFINISHED, state]})
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        running = asyncio.ensure_future(settlement.run())  # cancelled below
        await asyncio.sleep(0.5)
        for media_type, body in responses:
            watched = settlement.watch("openai", "resp_1", RESPONSES, harness.PROJECT)
            assert watched is not None
            watched.response_started(ResponseHead(200, media_type))
            watched.feed(body)
            watched.close(complete=True)
        await asyncio.sleep(1)
        running.cancel()
        return gateway.ledger.settled

    return virtual_time.run(run())


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events
    )


CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-4o-mini", "status": "in_progress"}}
DELTA = {"type": "response.output_text.delta", "delta": "a" * 20_000}
COMPLETED = {"type": "response.completed", "response": {**RESPONSE, "status": "completed"}}


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        pytest.param("application/json", FINISHED[1], id="fetched"),
        pytest.param("application/json", json.dumps({**CANCELLED, "usage": USAGE}).encode(), id="cancelled"),
        pytest.param("text/event-stream", sse(CREATED, DELTA, COMPLETED), id="resumed stream"),
    ],
)
def test_usage_in_a_response_that_passes_settles_the_request(gateway: Gateway, media_type: str, body: bytes) -> None:
    (settlement,) = pass_by(gateway, (media_type, body))

    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.00021"))


def test_deltas_of_a_resumed_stream_count_if_the_response_is_cancelled(gateway: Gateway) -> None:
    cancelled = (200, json.dumps(CANCELLED).encode())

    (settlement,) = pass_by(gateway, ("text/event-stream", sse(CREATED, DELTA)), state=cancelled)

    # 1000 tokens x 0.15 and 5000 x 0.60 per million.
    assert (settlement.basis, settlement.cost.subtotal) == (Basis.ESTIMATED, Decimal("0.00315"))


def test_response_without_usage_that_passes_settles_nothing(gateway: Gateway) -> None:
    assert pass_by(gateway, ("application/json", UNFINISHED[1]), ("application/json", b"no JSON")) == []


def test_record_is_polled_before_the_ledger_has_written_it(gateway: Gateway) -> None:
    provider = FakeProvider({STATE: [FINISHED]})

    async def run() -> DeferredSettlement:
        settlement = DeferredSettlement(gateway.snapshots, provider, gateway.ledger)  # type: ignore[arg-type]
        intent = make_intent("req_1", provider="openai", endpoint="/v1/responses", caller=Caller(harness.PROJECT))
        settlement.record_ended(make_record(intent, basis=Basis.PENDING, object_id="resp_1"))
        await settlement.settle_before_delete("openai", "resp_1", RESPONSES, harness.PROJECT)
        return settlement

    virtual_time.run(run())

    assert [settlement.request_id for settlement in gateway.ledger.settled] == ["req_1"]


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

    async def fail_twice(limit: int, after: int = 0) -> list[PendingRequest]:
        if failures:
            raise failures.pop()
        return await read(limit, after)

    gateway.ledger.pending_requests = fail_twice  # type: ignore[method-assign]
    provider = TimedProvider({STATE: [FINISHED]})

    assert len(settled(gateway, provider)) == 1
    assert provider.times == [2]
