"""The records of a session: one for each piece of work, each with an intent, in every order of events."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from tests.gateway.fakes import Gateway, make_project, make_snapshot, request_head
from tests.gateway.realtime.sessions import REALTIME, SESSION_ID
from tests.ledger.sample_records import make_intent
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.gateway.realtime.meter import SessionMeter, UnbilledSession
from tornado_proxy.providers.contract import (
    ClientFrame,
    SessionChanged,
    SocketEvent,
    UsageReported,
    WorkRejected,
    WorkStarted,
)
from tornado_proxy.upstream.credentials import caller_access

FRAME = ClientFrame(facts=RequestFacts(model="gpt-realtime"))


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(make_snapshot())


def make_meter(gateway: Gateway) -> SessionMeter:
    context = gateway.admission.authenticate_upgrade(gateway.snapshot, request_head(REALTIME, method="GET", headers=[]))
    reader = context.endpoint.open_reader(context.query, ())
    access = caller_access(context.snapshot, context.provider, context.caller)
    return SessionMeter(context, access, reader, SESSION_ID, gateway)


@pytest.fixture
def meter(gateway: Gateway) -> SessionMeter:
    return make_meter(gateway)


def reported(work_id: str) -> UsageReported:
    return UsageReported(UsageReport(basis=Basis.REPORTED, object_id=work_id))


async def apply(meter: SessionMeter, *events: SocketEvent) -> bool:
    """Apply the events of one frame; return True if the next frame had to wait."""
    wait = meter.apply(events)
    if wait is not None:
        await wait
    return wait is not None


async def expect(gateway: Gateway, meter: SessionMeter) -> None:
    """Store the intent of a request for work, and tell the meter of it."""
    intent = make_intent("req_1", session=SESSION_ID)
    await gateway.recorder.begin(intent)
    meter.expect(intent, FRAME, gateway.snapshot.tariffs["openai"])


def ids(gateway: Gateway) -> list[str]:
    return [record.intent.request_id for record in gateway.ledger.finished]


def test_requested_work_is_recorded_without_a_wait(gateway: Gateway, meter: SessionMeter) -> None:
    async def run() -> None:
        await expect(gateway, meter)
        assert meter.working
        assert not await apply(meter, WorkStarted("resp_1"))
        assert not await apply(meter, reported("resp_1"))

    asyncio.run(run())

    assert ids(gateway) == ["req_1"]
    assert (meter.records, meter.working) == (1, False)


@pytest.mark.parametrize("healthy", [True, False], ids=["ledger is healthy", "ledger cannot be written"])
def test_work_without_a_request_gets_an_intent_of_the_session(
    gateway: Gateway, meter: SessionMeter, healthy: bool
) -> None:
    if not healthy:
        gateway.ledger.fail("the disk is full")

    async def run() -> None:
        assert await apply(meter, WorkStarted("resp_1"), reported("resp_1"), SessionChanged(()))

    asyncio.run(run())

    (record,) = gateway.ledger.finished
    assert gateway.ledger.begun == ([record.intent] if healthy else [])
    assert (record.intent.session, record.intent.model_requested) == (SESSION_ID, "gpt-realtime")
    assert record.intent.request_id.startswith("req_")


def test_intent_of_work_without_a_request_has_the_bound_that_its_budget_reserves() -> None:
    budget = Budget(CounterKind(Scope.PROJECT, Period.MONTH), Decimal(500))
    gateway = Gateway(make_snapshot(projects=[make_project(budgets=(budget,))]))

    async def run() -> None:
        await gateway.budgets.follow(gateway.snapshot)
        await apply(make_meter(gateway), WorkStarted("resp_1"))

    asyncio.run(run())

    (reservation,) = gateway.keeper.reserved.values()
    assert reservation.bound.total > 0
    assert [intent.bound for intent in gateway.ledger.begun] == [reservation.bound.state()]


def test_every_intent_of_one_frame_is_stored_before_the_work_after_it_is_recorded(
    gateway: Gateway, meter: SessionMeter
) -> None:
    async def run() -> None:
        wait = meter.apply((WorkStarted("a"), reported("a"), WorkStarted("b"), reported("b")))
        assert wait is not None
        assert gateway.ledger.finished == []
        await wait

    asyncio.run(run())

    assert [record.object_id for record in gateway.ledger.finished] == ["a", "b"]
    assert gateway.ledger.begun == [record.intent for record in gateway.ledger.finished]


def test_rejected_request_is_a_free_record(gateway: Gateway, meter: SessionMeter) -> None:
    async def run() -> None:
        await expect(gateway, meter)
        await apply(meter, WorkRejected())

    asyncio.run(run())

    assert [(record.basis, record.outcome) for record in gateway.ledger.finished] == [
        (Basis.FREE, Outcome.UPSTREAM_ERROR)
    ]


def test_close_records_open_work_once_with_its_outcome_and_reason(gateway: Gateway, meter: SessionMeter) -> None:
    async def run() -> None:
        await expect(gateway, meter)
        meter.close(Outcome.SHUTDOWN, "reset")
        meter.close(Outcome.SHUTDOWN, "reset")

    asyncio.run(run())

    (record,) = gateway.ledger.finished
    assert (record.outcome, record.basis, record.faults[0]) == (Outcome.SHUTDOWN, Basis.UNSETTLED, "reset")


def test_realtime_call_has_an_intent_until_it_ends_free(gateway: Gateway, meter: SessionMeter) -> None:
    async def run() -> None:
        await meter.begin_call()
        (intent,) = gateway.ledger.begun
        assert (intent.session, intent.model_requested) == (SESSION_ID, "gpt-realtime")
        assert not meter.working
        meter.close(Outcome.COMPLETED)
        meter.close(Outcome.COMPLETED)

    asyncio.run(run())

    (record,) = gateway.ledger.finished
    assert [record.intent] == gateway.ledger.begun
    assert (record.basis, record.outcome, record.cost.total) == (Basis.FREE, Outcome.COMPLETED, 0)


def test_realtime_call_does_not_begin_while_the_ledger_cannot_be_written(gateway: Gateway, meter: SessionMeter) -> None:
    gateway.ledger.fail("the disk is full")

    with pytest.raises(LedgerUnavailable):
        asyncio.run(meter.begin_call())


def test_records_are_finished_with_the_generation_of_their_configuration(
    gateway: Gateway, meter: SessionMeter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    asyncio.run(apply(meter, reported("resp_1")))

    assert [vars(line)["config_generation"] for line in caplog.records] == [1]


def test_session_that_is_billed_elsewhere_records_nothing() -> None:
    session = UnbilledSession()

    session.apply((WorkStarted("resp_1"), reported("resp_1")))
    session.close(Outcome.COMPLETED)

    assert (session.records, session.working) == (0, False)
