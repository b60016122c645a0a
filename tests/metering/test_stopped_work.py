"""Work of stopped callers is cancelled at its provider, with retries, until it is lifted; on a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests import harness, virtual_time
from tests.gateway.fakes import Gateway, make_snapshot
from tests.ledger.memory_ledger import MemoryLedger
from tests.ledger.sample_records import START, make_intent, make_record
from tests.metering.test_deferred_settlement import (
    BATCH_RESULTS,
    BATCH_STATE,
    CANCELLED,
    ENDED_BATCH,
    FINISHED,
    RUNNING_BATCH,
    STATE,
    TIMED_OUT,
    UNFINISHED,
    TimedProvider,
)
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.errors import UpstreamUnreachable
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Settlement
from tornado_proxy.domain.state import State
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.usage import Basis
from tornado_proxy.metering import stopped_work
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.pricing.book.calculator import bill

CANCEL = "POST /v1/responses/resp_1/cancel"
CANCEL_BATCH = "POST /v1/messages/batches/batch_1/cancel"
USED = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
WITH_USAGE = (200, json.dumps({**CANCELLED, "usage": USED}).encode())
CANCELLING_BATCH = (200, b'{"id": "batch_1", "processing_status": "canceling"}')
UNREACHABLE = UpstreamUnreachable("the provider could not be reached: refused", request_sent=False)
UNAVAILABLE = (503, b"{}")
LINES = {
    "pending request cancelled because of a stop",
    "pending request could not be cancelled",
    "pending request not cancelled; it runs on and is charged",
}


def make_stop(target: StopTarget, number: int = 1) -> Stop:
    return Stop(f"stop_{number}", target, "cli:root", START, "runaway")


ADA = make_stop(StopTarget(participant="ada"))


class Stoppable:
    """A settlement under way, with the stops that a test makes and lifts."""

    def __init__(self, provider: TimedProvider, gateway: Gateway) -> None:
        self.provider = provider
        self.gateway = gateway
        self._generations = itertools.count(1)

    def set_stops(self, *stops: Stop) -> None:
        self.gateway.snapshots.set_state(State(next(self._generations), stops=stops))

    def run(self, *acts: Callable[[Stoppable], None], seconds: float = 10, **pending: Any) -> list[Settlement]:
        """Settle one pending request; call one of `acts` after each `seconds`.  Return the settlements."""

        async def run() -> list[Settlement]:
            await store_pending(self.gateway.ledger, **pending)
            settlement = DeferredSettlement(self.gateway.snapshots, self.provider, self.gateway.ledger)  # type: ignore[arg-type]
            running = asyncio.ensure_future(settlement.run())  # cancelled below
            for act in acts:
                await asyncio.sleep(seconds)
                act(self)
            await asyncio.sleep(seconds)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
            return self.gateway.ledger.settled

        return virtual_time.run(run())

    def count(self, path: str) -> int:
        return self.provider.paths.count(path)


async def store_pending(
    ledger: MemoryLedger, object_id: str = "resp_1", *, participant: str = "ada", session: str | None = None
) -> None:
    """Store the record of a background response, or of a batch."""
    is_batch = object_id.startswith("batch")
    intent = make_intent(
        f"req_{object_id}",
        provider="anthropic" if is_batch else "openai",
        endpoint="/v1/messages/batches" if is_batch else "/v1/responses",
        model_requested=None if is_batch else "gpt-4o-mini",
        caller=Caller(harness.PROJECT, participant=participant),
        attribution=Attribution(agent_session=session),
    )
    await ledger.begin(intent)
    await ledger.finish(make_record(intent, basis=Basis.PENDING, cost=bill((), Decimal(0)), object_id=object_id))


@pytest.fixture
def stoppable() -> Callable[..., Stoppable]:
    def make(responses: Any) -> Stoppable:
        return Stoppable(TimedProvider(responses), Gateway(make_snapshot()))

    return make


def stop_ada(work: Stoppable) -> None:
    work.set_stops(ADA)


def list_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the level and text of each line about cancellations."""
    return [(line.levelname, line.getMessage()) for line in caplog.records if line.getMessage() in LINES]


def test_running_response_of_a_stopped_participant_is_cancelled_at_once_and_settled_by_its_usage(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = stoppable({STATE: [UNFINISHED], CANCEL: [WITH_USAGE]})

    # The polls have a rhythm of many seconds by then.
    (settlement,) = work.run(stop_ada, seconds=300)

    # 1000 x 0.15 and 20 x 0.60 per million.
    assert (settlement.basis, settlement.cost.subtotal) == (Basis.REPORTED, Decimal("0.000162"))
    assert work.provider.paths[-2:] == [STATE, CANCEL]
    assert work.provider.times[-1] <= 301
    (line,) = [line for line in caplog.records if line.getMessage() in LINES]
    assert line.getMessage() == "pending request cancelled because of a stop"
    assert {name: vars(line)[name] for name in ("request_id", "project_id", "provider", "object_id", "stop")} == {
        "request_id": "req_resp_1",
        "project_id": harness.PROJECT,
        "provider": "openai",
        "object_id": "resp_1",
        "stop": "stop_1",
    }


@pytest.mark.parametrize(
    ("target", "is_cancelled"),
    [
        pytest.param(StopTarget(harness.PROJECT), True, id="project"),
        pytest.param(StopTarget("another"), False, id="another project"),
        pytest.param(StopTarget(participant="eve"), False, id="another participant"),
        pytest.param(StopTarget(agent_session="s1"), True, id="agent session"),
        pytest.param(StopTarget(harness.PROJECT, "ada", "s2"), False, id="another agent session"),
    ],
)
def test_stop_cancels_the_work_that_it_covers_and_no_other(
    stoppable: Callable[..., Stoppable], target: StopTarget, *, is_cancelled: bool
) -> None:
    work = stoppable({STATE: [UNFINISHED], CANCEL: [WITH_USAGE]})

    work.run(lambda work: work.set_stops(make_stop(target)), session="s1")

    assert work.count(CANCEL) == is_cancelled


def test_work_is_cancelled_that_was_begun_before_a_restart(stoppable: Callable[..., Stoppable]) -> None:
    work = stoppable({STATE: [UNFINISHED], CANCEL: [WITH_USAGE]})
    work.set_stops(ADA)

    (settlement,) = work.run(seconds=2)

    assert settlement.basis is Basis.REPORTED


def test_batch_is_cancelled_once_and_settled_when_it_has_ended(stoppable: Callable[..., Stoppable]) -> None:
    results = (200, b'{"custom_id": "a", "result": {"type": "canceled"}}')
    states = [RUNNING_BATCH, CANCELLING_BATCH, CANCELLING_BATCH, ENDED_BATCH]
    work = stoppable({BATCH_STATE: states, BATCH_RESULTS: [results], CANCEL_BATCH: [CANCELLING_BATCH]})
    work.set_stops(ADA)

    (settlement,) = work.run(object_id="batch_1", seconds=10)

    assert (settlement.cost.total, work.count(CANCEL_BATCH)) == (Decimal(0), 1)


def test_work_that_another_process_has_cancelled_is_not_cancelled_again(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = stoppable({BATCH_STATE: [RUNNING_BATCH, CANCELLING_BATCH]})

    work.run(stop_ada, object_id="batch_1", seconds=1)

    assert list_lines(caplog) == []


def test_response_that_ends_before_its_cancellation_is_settled_in_full(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = stoppable({STATE: [UNFINISHED, FINISHED], CANCEL: [(400, b"{}")]})
    work.set_stops(ADA)

    (settlement,) = work.run(seconds=1)

    assert settlement.cost.subtotal == Decimal("0.00021")
    assert list_lines(caplog) == []


def test_response_that_runs_on_after_its_cancellation_is_cancelled_until_it_ends(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = stoppable({STATE: [UNFINISHED], CANCEL: [UNFINISHED, UNFINISHED, WITH_USAGE]})
    work.set_stops(ADA)

    (settlement,) = work.run(seconds=10)

    assert (settlement.cost.subtotal, work.count(CANCEL)) == (Decimal("0.000162"), 3)
    assert list_lines(caplog) == [("INFO", "pending request cancelled because of a stop")]


@pytest.mark.parametrize(
    "responses",
    [
        pytest.param({STATE: [*[UNREACHABLE, TIMED_OUT] * 4, TIMED_OUT, UNFINISHED], CANCEL: [WITH_USAGE]}, id="state"),
        pytest.param({STATE: [UNFINISHED], CANCEL: [*[TIMED_OUT] * 9, WITH_USAGE]}, id="cancellation"),
        pytest.param({STATE: [UNFINISHED], CANCEL: [*[UNAVAILABLE] * 9, WITH_USAGE]}, id="refused"),
    ],
)
def test_cancellation_is_tried_again_each_minute_while_it_fails(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture, responses: Any
) -> None:
    caplog.set_level(logging.INFO)
    failed = REGISTRY.get_sample_value("llm_proxy_stop_cancellations_total", {"result": "failed"}) or 0
    work = stoppable(responses)
    work.set_stops(ADA)

    (settlement,) = work.run(seconds=600)

    assert settlement.basis is Basis.REPORTED
    # Waits of 1 s, each 1.5 times the one before: nine failures take less than two minutes.
    assert work.provider.times[-1] < 120
    # Only the first failure is logged.
    assert list_lines(caplog) == [
        ("WARNING", "pending request could not be cancelled"),
        ("INFO", "pending request cancelled because of a stop"),
    ]
    now = REGISTRY.get_sample_value("llm_proxy_stop_cancellations_total", {"result": "failed"})
    assert now == failed + 9


def test_cancellation_is_given_up_in_the_end_and_the_usage_is_polled_for(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    # Not a day: each second of it costs 0.1 ms.
    monkeypatch.setattr(stopped_work, "MAX_CANCEL_S", 1200.0)
    work = stoppable({STATE: [UNFINISHED], CANCEL: [UNAVAILABLE]})
    work.set_stops(ADA)
    tried: list[int] = []

    def note(work: Stoppable) -> None:
        tried.append(work.count(CANCEL))

    assert work.run(note, note, seconds=1300) == []

    assert tried[0] > 20
    assert tried[1] == tried[0] == work.count(CANCEL)
    assert list_lines(caplog)[-1] == ("ERROR", "pending request not cancelled; it runs on and is charged")
    assert len(list_lines(caplog)) == 2
    # Its usage is still polled for, in the rhythm of work that runs.
    assert work.count(STATE) > tried[0] + 1300 / 31


def test_response_that_runs_on_after_all_cancellations_is_given_up(
    stoppable: Callable[..., Stoppable], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopped_work, "MAX_CANCEL_S", 300.0)
    work = stoppable({STATE: [UNFINISHED], CANCEL: [UNFINISHED]})
    work.set_stops(ADA)
    tried: list[int] = []

    work.run(lambda work: tried.append(work.count(CANCEL)), seconds=400)

    assert tried[0] == work.count(CANCEL) > 5
    assert list_lines(caplog) == [("ERROR", "pending request not cancelled; it runs on and is charged")]
    assert vars(caplog.records[-1])["reason"] == "the provider has accepted its cancellation"


def test_lifted_stop_ends_the_attempts_and_a_new_one_begins_them_again(stoppable: Callable[..., Stoppable]) -> None:
    work = stoppable({STATE: [UNFINISHED], CANCEL: [UNAVAILABLE]})
    tried: list[int] = []

    def lift(work: Stoppable) -> None:
        work.set_stops()
        tried.append(work.count(CANCEL))

    def stop_again(work: Stoppable) -> None:
        tried.append(work.count(CANCEL))
        work.set_stops(replace(ADA, id="stop_2"))

    work.run(stop_ada, lift, stop_again, seconds=100)

    assert tried[0] == tried[1] > 3
    assert work.count(CANCEL) > tried[1] + 3
