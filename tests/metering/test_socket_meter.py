"""Events of a session become intents and records: each row of events has its records, in order."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.gateway.fakes import make_snapshot
from tests.ledger.sample_records import make_intent
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, Meter, Quantity, UsageItem, UsageReport
from tornado_proxy.metering.socket_meter import SocketMeter
from tornado_proxy.providers.contract import (
    ClientFrame,
    SessionChanged,
    SocketEvent,
    UsageReported,
    WorkRejected,
    WorkStarted,
)

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
STARTED_A, STARTED_B = WorkStarted("a"), WorkStarted("b")
REJECTED = WorkRejected()


def report(object_id: str | None, basis: Basis = Basis.REPORTED) -> UsageReport:
    quantities = (Quantity(Meter.OUTPUT, Decimal(1000)),)
    return UsageReport((UsageItem(quantities, model="gpt-realtime"),), basis, object_id=object_id, raw="{}")


DONE_A, DONE_B, DONE = UsageReported(report("a")), UsageReported(report("b")), UsageReported(report(None))


class FakeReader:
    """A reader whose unfinished work is `unfinished`."""

    model = "gpt-realtime"

    def __init__(self, *unfinished: UsageReport) -> None:
        self.working = bool(unfinished)
        self._unfinished = unfinished

    def close(self) -> tuple[UsageReport, ...]:
        unfinished, self._unfinished, self.working = self._unfinished, (), False
        return unfinished


class Metered:
    """A meter, and the intents and records that it has returned."""

    def __init__(self, *unfinished: UsageReport) -> None:
        self._numbers = itertools.count(1)
        self.models: list[str | None] = []
        self.reader = FakeReader(*unfinished)
        self.tariff = make_snapshot().tariffs["openai"]
        self.meter = SocketMeter(self.reader, self.tariff, self._new_intent)  # type: ignore[arg-type]
        self.begun: list[str] = []
        self.records: list[RequestRecord] = []

    def _new_intent(self, facts: RequestFacts) -> RequestIntent:
        self.models.append(facts.model)
        return make_intent(f"new_{next(self._numbers)}")

    def expect(self, *request_ids: str, lane: str = "") -> None:
        """Expect requests whose frames have their request ids as event ids."""
        for request_id in request_ids:
            frame = ClientFrame(request_id, facts=RequestFacts(model="gpt-realtime"), lane=lane)
            self.meter.expect(make_intent(request_id), frame, self.tariff)

    def apply(self, *events: SocketEvent) -> None:
        for event in events:
            result = self.meter.apply(event)
            if isinstance(result, RequestIntent):
                self.begun.append(result.request_id)
            elif result is not None:
                self.records.append(result)

    @property
    def matches(self) -> list[tuple[str, str | None]]:
        """The request id and the work id of each record."""
        return [(record.intent.request_id, record.object_id) for record in self.records]


@pytest.mark.parametrize(
    ("expected", "events", "matches", "begun"),
    [
        pytest.param(["r1"], [STARTED_A, DONE_A], [("r1", "a")], [], id="requested"),
        pytest.param([], [STARTED_A, DONE_A], [("new_1", "a")], ["new_1"], id="not requested"),
        pytest.param(
            ["r1", "r2"],
            [STARTED_A, STARTED_B, DONE_B, DONE_A],
            [("r2", "b"), ("r1", "a")],
            [],
            id="work is matched in the order of the requests, whatever ends first",
        ),
        pytest.param(
            ["r1"],
            [STARTED_A, STARTED_B, DONE_A, DONE_B],
            [("r1", "a"), ("new_1", "b")],
            ["new_1"],
            id="a request and a transcription",
        ),
        pytest.param(["r1"], [DONE], [("r1", None)], [], id="usage without an id belongs to the oldest request"),
        pytest.param([], [DONE], [("new_1", None)], [], id="usage without an id or a request"),
        pytest.param(["r1"], [DONE_B, STARTED_A], [("new_1", "b")], [], id="usage of work that never started"),
        pytest.param([], [SessionChanged(())], [], [], id="a change of the session is no work"),
        pytest.param([], [REJECTED], [], [], id="an error without a request"),
        pytest.param([], [STARTED_A, DONE_A, DONE_A], [("new_1", "a"), ("new_2", "a")], ["new_1"], id="usage twice"),
    ],
)
def test_work_is_matched_with_its_request(
    expected: list[str], events: list[SocketEvent], matches: list[tuple[str, str | None]], begun: list[str]
) -> None:
    metered = Metered()
    metered.expect(*expected)

    metered.apply(*events)

    assert metered.matches == matches
    assert metered.begun == begun
    assert set(metered.models) <= {"gpt-realtime"}
    assert {(record.outcome, record.basis, record.status) for record in metered.records} <= {
        (Outcome.COMPLETED, Basis.REPORTED, 101)
    }


def test_usage_is_rated_at_the_price_of_the_request() -> None:
    metered = Metered()

    metered.apply(STARTED_A, DONE_A)

    # 1000 output tokens at 16 per million, and 5 % of that.
    (record,) = metered.records
    assert (record.cost.subtotal, record.cost.total) == (Decimal("0.016"), Decimal("0.0168"))
    assert record.usage == "{}"


def test_rejected_request_is_free_and_the_next_one_gets_the_work() -> None:
    metered = Metered()
    metered.expect("r1", "r2")

    metered.apply(REJECTED, STARTED_A, DONE_A)

    rejected, completed = metered.records
    assert (rejected.intent.request_id, rejected.basis, rejected.outcome) == (
        "r1",
        Basis.FREE,
        Outcome.UPSTREAM_ERROR,
    )
    assert rejected.faults == ("the provider responded with an error",)
    assert completed.intent.request_id == "r2"


@pytest.mark.parametrize(
    ("rejected", "matches"),
    [
        pytest.param(WorkRejected(event_id="r2"), [("r2", None)], id="request that it names"),
        pytest.param(WorkRejected(event_id="other"), [], id="frame that requested no work"),
        pytest.param(WorkRejected(), [("r1", None)], id="oldest request"),
        pytest.param(WorkRejected(lane="b"), [("r3", None)], id="oldest request of the lane"),
        pytest.param(WorkRejected(lane="b", event_id="r1"), [], id="request of another lane"),
        pytest.param(WorkRejected(lane="c"), [], id="lane without a request"),
    ],
)
def test_rejection_ends_the_request_that_it_is_about(
    rejected: WorkRejected, matches: list[tuple[str, str | None]]
) -> None:
    metered = Metered()
    metered.expect("r1", "r2")
    metered.expect("r3", lane="b")

    metered.apply(rejected)

    assert metered.matches == matches


def test_work_gets_the_oldest_request_of_its_lane() -> None:
    metered = Metered()
    metered.expect("r1")
    metered.expect("r2", lane="b")

    metered.apply(WorkStarted("b", "b"), DONE_B, WorkStarted("a", "c"), DONE_A)

    assert metered.matches == [("r2", "b"), ("new_1", "a")]


def test_work_without_a_request_is_rated_by_the_facts_of_its_start() -> None:
    metered = Metered()

    metered.apply(WorkStarted("a", facts=RequestFacts(model="gpt-4o")), UsageReported(UsageReport(object_id="a")))

    (record,) = metered.records
    assert record.model == "gpt-4o"


def test_failed_work_has_its_usage_and_the_provider_s_outcome() -> None:
    metered = Metered()
    metered.expect("r1")

    metered.apply(STARTED_A, UsageReported(report("a"), failed=True))

    (record,) = metered.records
    assert (record.outcome, record.basis) == (Outcome.UPSTREAM_ERROR, Basis.REPORTED)


def test_error_does_not_end_work_that_has_started() -> None:
    metered = Metered()
    metered.expect("r1")

    metered.apply(STARTED_A, REJECTED, DONE_A)

    assert metered.matches == [("r1", "a")]


@pytest.mark.parametrize(
    ("metered", "expected", "events", "working"),
    [
        pytest.param(Metered(), [], [], False, id="new session"),
        pytest.param(Metered(), ["r1"], [], True, id="expected"),
        pytest.param(Metered(report("a")), ["r1"], [STARTED_A], True, id="running"),
        pytest.param(Metered(), ["r1"], [REJECTED], False, id="rejected"),
        pytest.param(Metered(), ["r1"], [STARTED_A, DONE_A], False, id="done"),
    ],
)
def test_session_works_while_work_is_expected_or_runs(
    metered: Metered, expected: list[str], events: list[SocketEvent], working: bool
) -> None:
    metered.expect(*expected)

    metered.apply(*events)

    assert metered.meter.working is working


def test_close_leaves_an_estimate_of_running_work_and_unsettled_requests() -> None:
    metered = Metered(report("a", Basis.ESTIMATED), report("c", Basis.ESTIMATED))
    metered.expect("r1", "r2", "r3")
    metered.apply(STARTED_A, STARTED_B)

    records = metered.meter.close(Outcome.CLIENT_CLOSED, "the client left")

    assert [(record.intent.request_id, record.object_id, record.basis) for record in records] == [
        ("r1", "a", Basis.ESTIMATED),
        ("new_1", "c", Basis.ESTIMATED),
        ("r2", None, Basis.UNSETTLED),
        ("r3", None, Basis.UNSETTLED),
    ]
    assert {record.outcome for record in records} == {Outcome.CLIENT_CLOSED}
    assert all(record.faults[0] == "the client left" for record in records)
    assert records[-1].faults[1] == "the session ended before the provider responded"


def test_second_close_returns_no_record() -> None:
    metered = Metered(report("a", Basis.ESTIMATED))
    metered.expect("r1", "r2", "r3")
    metered.apply(STARTED_A, STARTED_B)
    assert len(metered.meter.close(Outcome.SHUTDOWN)) == 3

    assert metered.meter.close(Outcome.SHUTDOWN) == []
    assert not metered.meter.working


def test_close_without_work_returns_no_record() -> None:
    assert Metered().meter.close(Outcome.COMPLETED) == []


def test_estimate_is_the_cost_of_work_that_breaks_off_now_and_changes_nothing() -> None:
    metered = Metered(report("a", Basis.ESTIMATED), report("b", Basis.UNSETTLED))
    metered.apply(STARTED_A, STARTED_B)

    estimates = [metered.meter.estimate(START) for _ in range(2)]

    # 1000 output tokens at 16 per million, and 5 % of that; the cost of the other work is not known.
    assert [[cost.total for cost in costs] for costs in estimates] == [[Decimal("0.0168")]] * 2
    assert [record.object_id for record in metered.meter.close(Outcome.CLIENT_CLOSED)] == ["a", "b"]
    assert metered.meter.estimate(START) == ()


def test_estimate_of_a_session_that_cannot_be_read_is_nothing() -> None:
    metered = Metered(report("a"))
    metered.reader.close = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]

    assert metered.meter.estimate(START) == ()
