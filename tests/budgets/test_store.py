"""Counters and reservations on both databases."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.budgets.conftest import (
    CALLER,
    MONTH,
    NOW,
    BudgetsUnderTest,
    intent,
    make_id,
    record,
    reservation,
    settlement,
    usd,
)
from tornado_proxy.budgets.counting import counters, folding, ledger_sums
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.budgets.budget import Budget, BudgetChange, TokenBudget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, Amount, CounterKind, CounterPlan, Period, Scope
from tornado_proxy.domain.budgets.refusal import BudgetRefusal
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.dialect import Insert

BUDGET = Budget(MONTH, Decimal(1))


def test_request_is_admitted_until_the_limit_is_reached(budgets: BudgetsUnderTest) -> None:
    assert budgets.reserve("a", "0.7", "1") is None
    assert budgets.reserve("b", "0.7", "1") is None  # 0.7 < 1: the last request may exceed the limit

    refusal = budgets.reserve("c", "0.1", "1")

    assert refusal is not None
    assert not refusal.exhausted
    assert (refusal.counter.settled, refusal.counter.reserved) == usd("0", "1.4")
    assert budgets.figures() == {"": usd("0", "1.4")}


def test_strict_budget_is_never_exceeded(budgets: BudgetsUnderTest) -> None:
    assert budgets.reserve("a", "0.7", "1", strict=True) is None

    refusal = budgets.reserve("b", "0.4", "1", strict=True)
    too_large = budgets.reserve("c", "1.1", "1", strict=True)

    assert refusal is not None
    assert not refusal.exhausted
    assert too_large is not None
    assert too_large.exhausted  # it would not fit without the reservation either
    assert budgets.reserve("d", "0.3", "1", strict=True) is None


def test_limit_of_zero_admits_nothing(budgets: BudgetsUnderTest) -> None:
    refusal = budgets.reserve("a", "0", "0")

    assert refusal is not None
    assert refusal.exhausted


def test_record_replaces_its_reservation(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0.25"))

    budgets.store.folding.fold()

    assert budgets.figures() == {"": usd("0.25", "0")}
    assert list(budgets.store.iterate_reservations()) == []


def test_record_is_counted_once_by_all_processes(budgets: BudgetsUnderTest) -> None:
    other = budgets.open()
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0.25"), record("b", "0.5"))

    for store in (budgets.store, other, budgets.store, other):
        store.folding.fold()

    assert budgets.figures() == {"": usd("0.75", "0")}


def test_spent_money_refuses_for_good(budgets: BudgetsUnderTest) -> None:
    budgets.write(record("a", "1"))
    budgets.store.folding.fold()

    refusal = budgets.reserve("b", "0.1", "1")

    assert refusal is not None
    assert refusal.exhausted


def test_request_that_was_not_sent_frees_its_reservation(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")

    budgets.store.release([make_id("a"), "unknown"])

    assert budgets.figures() == {"": usd("0", "0")}
    assert list(budgets.store.iterate_reservations()) == []


def test_free_record_frees_all(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.FREE))

    budgets.store.folding.fold()

    assert budgets.figures() == {"": usd("0", "0")}


def test_unsettled_record_holds_its_reservation(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.UNSETTLED))

    budgets.store.folding.fold()

    assert budgets.figures() == {"": usd("0", "0.7")}
    (held,) = budgets.store.iterate_reservations()
    assert (held.request_id, held.state, held.total) == (make_id("a"), "held", Decimal("0.7"))


def test_unsettled_record_holds_nothing_if_that_is_turned_off(budgets: BudgetsUnderTest) -> None:
    store = budgets.open(hold=False)
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.UNSETTLED))

    store.folding.fold()

    assert budgets.figures() == {"": usd("0", "0")}


def test_pending_record_holds_its_reservation_until_it_is_settled(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.PENDING))
    budgets.store.folding.fold()
    assert budgets.figures() == {"": usd("0", "0.7")}

    budgets.write(settlement("a", "0.3"))
    budgets.store.folding.fold_settlements()
    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.3", "0")}
    assert list(budgets.store.iterate_reservations()) == []


def test_settlement_without_a_reservation_is_counted(budgets: BudgetsUnderTest) -> None:
    budgets.write(record("a", "0", basis=Basis.PENDING))
    budgets.store.folding.fold()
    budgets.write(settlement("a", "0.3"))

    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.3", "0")}


def test_final_settlement_replaces_the_figures_of_a_request_that_was_given_up(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.PENDING))
    budgets.write(settlement("a", "0.4", basis=Basis.ESTIMATED, final=False))
    budgets.store.folding.fold()
    budgets.store.folding.fold_settlements()
    assert budgets.figures() == {"": usd("0.4", "0")}

    budgets.write(settlement("a", "0.3"))
    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.3", "0")}


def test_given_up_request_of_unknown_cost_stays_reserved(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.PENDING))
    budgets.write(settlement("a", "0", basis=Basis.UNSETTLED, final=False))
    budgets.store.folding.fold()

    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0", "0.7")}


def test_each_scope_counts_its_own_subjects(budgets: BudgetsUnderTest) -> None:
    kinds = {
        "participant": CounterKind(Scope.PARTICIPANT, Period.DAY),
        "user": CounterKind(Scope.USER, Period.DAY),
        "access key": CounterKind(Scope.ACCESS_KEY, Period.DAY),
    }
    budgets.store.folding.register(kinds.values(), NOW)
    ada_by_key = Caller("project-a", participant="ada", credential_id="ak_1")
    ada_by_login = Caller("project-a", user="ada", credential_id="client")
    budgets.write(record("a", "0.1"), record("b", "0.2", ada_by_key), record("c", "0.4", ada_by_login))

    budgets.store.folding.fold()

    assert budgets.figures(kinds["participant"]) == {"participant ada": usd("0.3", "0"), "user ada": usd("0.4", "0")}
    assert budgets.figures(kinds["user"]) == {"user ada": usd("0.4", "0")}
    assert budgets.figures(kinds["access key"]) == {"ak_1": usd("0.2", "0")}
    assert budgets.figures() == {"": usd("0.7", "0")}


def test_narrowed_token_counts_for_itself_and_for_the_tokens_that_it_was_made_from(budgets: BudgetsUnderTest) -> None:
    budgets.store.folding.register([TOKEN_TOTAL], NOW)
    parent, child = replace(CALLER, token_ids=("tok_1",)), replace(CALLER, token_ids=("tok_1", "tok_2"))
    budgets.write(record("a", "0.1", parent), record("b", "0.2", child), record("c", "0.4", CALLER))

    budgets.store.folding.fold()

    assert budgets.figures(TOKEN_TOTAL) == {"tok_1": usd("0.3", "0"), "tok_2": usd("0.2", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_budget_of_one_subject_limits_its_counter_alone(budgets: BudgetsUnderTest) -> None:
    budgets.store.folding.register([TOKEN_TOTAL], NOW)
    budgets.write(record("a", "0.2", replace(CALLER, token_ids=("tok_1", "tok_2"))))
    budgets.store.folding.fold()
    of_child = Budget(TOKEN_TOTAL, Decimal("0.2"), subject="tok_2")
    of_all = Budget(TOKEN_TOTAL, Decimal("0.3"))
    spender = Spender("project-a", "ada", token_ids=("tok_1", "tok_2"))

    parent = structs.replace(spender, token_ids=("tok_1",))
    bound = CostBound(Decimal("0.1"), Decimal("0.1"))

    refused, of_parent = budgets.store.reserve(
        [
            Reservation("b", BudgetedSpender(spender, (of_child, of_all)), bound, NOW),
            Reservation("c", BudgetedSpender(parent, (of_all,)), bound, NOW),
        ]
    )

    assert isinstance(refused, BudgetRefusal)
    assert (refused.budget, refused.counter.subject) == (of_child, "tok_2")
    assert of_parent is None
    assert budgets.figures(TOKEN_TOTAL) == {"tok_1": usd("0.2", "0.1"), "tok_2": usd("0.2", "0")}


def test_agent_session_counts_what_its_records_state(budgets: BudgetsUnderTest) -> None:
    kind = CounterKind(Scope.AGENT_SESSION, Period.DAY)
    budgets.store.folding.register([kind], NOW)
    purpose = Attribution(agent_session="s-1")
    stated = structs.replace(record("a", "0.1"), intent=structs.replace(intent("a"), attribution=purpose))
    budgets.write(stated, record("b", "0.2"))

    budgets.store.folding.fold()

    assert budgets.figures(kind) == {"s-1": usd("0.1", "0")}


def test_projects_have_counters_of_their_own(budgets: BudgetsUnderTest) -> None:
    budgets.write(record("a", "0.1"), record("b", "0.2", Caller("project-b", participant="ada")))

    budgets.store.folding.fold()

    counters = {state.project_id: state.settled for state in budgets.store.list_counters()}
    assert counters == {"project-a": Decimal("0.1"), "project-b": Decimal("0.2")}


def test_request_counts_in_the_period_in_which_it_began(budgets: BudgetsUnderTest) -> None:
    day = CounterKind(Scope.PROJECT, Period.DAY)
    budgets.store.folding.register([day], NOW)
    before_midnight = NOW.replace(hour=23, minute=59)
    budgets.write(record("a", "0.1", at=before_midnight), record("b", "0.2", at=NOW + timedelta(days=1)))

    budgets.store.folding.fold()

    by_day = {state.interval.begin.day: state.settled for state in budgets.store.list_counters() if state.kind == day}
    assert by_day == {28: Decimal("0.1"), 29: Decimal("0.2")}


def test_total_counts_and_limits_from_its_start_on(budgets: BudgetsUnderTest) -> None:
    later = NOW + timedelta(days=2)
    kind = CounterKind(Scope.PROJECT, Period.TOTAL, start=later.date())
    budgets.store.folding.register([kind], NOW)
    assert budgets.reserve("before", "0.7", "0.1", kind=kind) is None
    budgets.write(record("before", "0.5"))
    budgets.store.folding.fold()
    assert budgets.store.folding.correct(NOW) == 0

    assert budgets.reserve("first", "0.7", "0.1", kind=kind, at=later) is None
    budgets.write(record("first", "0.2", at=later))
    budgets.store.folding.fold()

    refusal = budgets.reserve("second", "0.7", "0.1", kind=kind, at=later)
    assert refusal is not None
    assert refusal.counter.settled == Decimal("0.2")
    assert budgets.store.folding.correct(later) == 0


def test_subtotal_counts_without_surcharge(budgets: BudgetsUnderTest) -> None:
    subtotal = CounterKind(Scope.PROJECT, Period.MONTH, Amount.SUBTOTAL)
    budgets.store.folding.register([subtotal], NOW)
    entry = record("a", "0.11")
    budgets.write(record("a", "0.11", cost=type(entry.cost)((), Decimal("0.1"), Decimal("0.01"), Decimal("0.11"))))

    budgets.store.folding.fold()

    assert budgets.figures(subtotal) == {"": usd("0.1", "0")}
    assert budgets.figures() == {"": usd("0.11", "0")}


def test_new_kind_counts_what_the_ledger_holds_of_its_period(budgets: BudgetsUnderTest) -> None:
    last_month = NOW - timedelta(days=30)
    budgets.write(
        record("a", "0.1"),
        record("b", "0.2", at=last_month),
        record("c", "0", basis=Basis.PENDING),
        record("d", "0", basis=Basis.PENDING),
    )
    budgets.write(settlement("c", "0.4"))
    budgets.store.folding.fold()
    budgets.store.folding.fold_settlements()
    week, total = CounterKind(Scope.PROJECT, Period.WEEK), CounterKind(Scope.PROJECT, Period.TOTAL)

    budgets.store.folding.register([week, total], NOW)

    assert budgets.figures(week) == {"": usd("0.5", "0")}
    assert budgets.figures(total) == {"": usd("0.7", "0")}
    # A settlement that comes later is counted once.
    budgets.write(settlement("d", "0.8"))
    budgets.store.folding.fold_settlements()
    assert budgets.figures(week) == {"": usd("1.3", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_new_kind_keeps_what_its_counters_have_reserved(budgets: BudgetsUnderTest) -> None:
    budgets.write(record("a", "0.1"), record("b", "0.2", replace(CALLER, participant="ben")))
    day = CounterKind(Scope.PARTICIPANT, Period.DAY)
    key = counters.make_key(day, "project-a", "participant ada", NOW)
    values = (*key.values, key.period_end, "0", "0.4")
    budgets.store._budgets.run(f"INSERT INTO budget_counters VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608  # placeholders

    budgets.store.folding.register([day], NOW)

    assert budgets.figures(day) == {"participant ada": usd("0.1", "0.4"), "participant ben": usd("0.2", "0")}


def test_settlement_that_is_not_counted_yet_is_not_counted_by_a_new_kind(budgets: BudgetsUnderTest) -> None:
    budgets.write(record("c", "0", basis=Basis.PENDING))
    budgets.store.folding.fold()
    budgets.write(settlement("c", "0.4"))
    day = CounterKind(Scope.PROJECT, Period.DAY)

    budgets.store.folding.register([day], NOW)
    budgets.store.folding.fold_settlements()

    assert budgets.figures(day) == {"": usd("0.4", "0")}


def test_counters_are_corrected_by_the_ledger(budgets: BudgetsUnderTest) -> None:
    budgets.write(record("a", "0.1"), record("b", "0.2"))
    budgets.store.folding.fold()
    assert budgets.store.folding.correct(NOW) == 0
    other = budgets.open()
    other._budgets.run("UPDATE budget_counters SET settled = '0.05'")

    assert budgets.store.folding.correct(NOW) == Decimal("0.25")

    assert budgets.figures() == {"": usd("0.3", "0")}


def test_lost_request_of_a_dead_process_stays_reserved(budgets: BudgetsUnderTest) -> None:
    dead, dead_id = budgets.open("dead"), budgets.locks("dead").writer_id
    dead.reserve([reservation("lost", "0.3", BUDGET), reservation("never sent", "0.4", BUDGET)])
    budgets.reserve("alive", "0.1", "1")
    leave_intent(budgets, "lost")

    budgets.store.folding.free_orphans(dead_id)

    states = {entry.request_id: entry.state for entry in budgets.store.iterate_reservations()}
    assert states == {make_id("lost"): "held", make_id("alive"): "open"}
    assert budgets.figures() == {"": usd("0", "0.4")}


def leave_intent(budgets: BudgetsUnderTest, name: str) -> None:
    """Leave an intent in the ledger, as a process does that dies."""
    folding = budgets.store.folding
    row = intent(name)
    folding._ledger.run(
        "INSERT INTO intents (request_id, writer, project_id, started_at) VALUES (?, 'dead', ?, ?)",
        (row.request_id, row.caller.project_id, row.started_at.isoformat()),
    )


def test_ended_periods_are_forgotten_with_what_they_hold(budgets: BudgetsUnderTest) -> None:
    budgets.reserve("a", "0.7", "1")
    budgets.write(record("a", "0", basis=Basis.UNSETTLED))
    budgets.store.folding.fold()

    budgets.store.folding.forget_ended(NOW)
    assert len(list(budgets.store.iterate_reservations())) == 1

    budgets.store.folding.forget_ended(NOW + timedelta(days=3))

    assert list(budgets.store.iterate_reservations()) == []
    assert budgets.store.list_counters() == []


def test_parallel_requests_of_several_processes_exceed_the_limit_by_one_at_most(budgets: BudgetsUnderTest) -> None:
    admitted: list[str] = []

    def run(writer: str) -> None:
        store = budgets.open(writer)
        requests = [reservation(f"{writer}-{number}", "0.3", BUDGET) for number in range(50)]
        for start in range(0, 50, 5):
            batch = requests[start : start + 5]
            results = store.reserve(batch)
            admitted.extend(entry.request_id for entry, result in zip(batch, results, strict=True) if result is None)

    threads = [threading.Thread(target=run, args=(f"process-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    # 0.3, 0.6, 0.9 are below 1; the fourth is the one that exceeds it.
    assert len(admitted) == 4
    assert budgets.figures() == {"": usd("0", "1.2")}


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    """Let threads take turns every 0.1 ms: more interleavings in less time than with Python's 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_records_that_are_written_while_others_count_are_all_counted(budgets: BudgetsUnderTest) -> None:
    stop = threading.Event()

    def count() -> None:
        store = budgets.open("counting")
        while not stop.is_set():
            store.folding.fold()

    thread = threading.Thread(target=count)
    thread.start()
    try:
        budgets.write(*(record(f"{number}", "0.01") for number in range(200)))
    finally:
        stop.set()
        thread.join(30)
    budgets.store.folding.fold()

    assert budgets.figures() == {"": usd("2", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_each_record_of_a_large_batch_counts_for_its_own_caller_and_day(budgets: BudgetsUnderTest) -> None:
    day = CounterKind(Scope.PARTICIPANT, Period.DAY)
    budgets.store.folding.register([day], NOW)
    yesterday = NOW - timedelta(days=1)
    # More than the 1,000 records that are counted in one transaction.
    rows = [
        (f"{number}", "project-a", participant, at.isoformat(), at.isoformat(), "reported", "0.01", "0.008")
        for number in range(1200)
        for participant, at in [("bob" if number % 3 else "ada", yesterday if number % 4 == 0 else NOW)]
    ]
    columns = ("request_id", "project_id", "participant", "started_at", "ended_at", "basis", "total", "subtotal")
    ledger = budgets.store._databases.ledger
    with ledger.transaction():
        ledger.insert(Insert("records", columns, "request_id"), rows)

    budgets.store.folding.fold()

    counted = {
        (state.subject, state.interval.begin.day): state.settled
        for state in budgets.store.list_counters()
        if state.kind == day
    }
    assert counted == {
        ("participant ada", 27): Decimal(1),
        ("participant ada", 28): Decimal(3),
        ("participant bob", 27): Decimal(2),
        ("participant bob", 28): Decimal(6),
    }
    assert budgets.figures() == {"": usd("12", "0")}


def test_caller_is_charged_to_its_credential(budgets: BudgetsUnderTest) -> None:
    label = CounterKind(Scope.LABEL, Period.MONTH, label="team")
    budgets.store.folding.register([label], NOW)

    assert budgets.reserve("a", "0.1", "1", kind=label, caller=CALLER) is None  # without the label nothing is counted

    assert budgets.figures(label) == {}


def test_work_that_runs_is_reserved_and_told_that_the_budget_is_spent(budgets: BudgetsUnderTest) -> None:
    running = structs.replace(reservation("r1", "0.3", Budget(MONTH, Decimal(0))), forced=True)
    (refusal,) = budgets.store.reserve([running])
    assert isinstance(refusal, BudgetRefusal)
    assert refusal.exhausted
    assert budgets.figures() == {"": usd("0", "0.3")}


def test_kind_that_two_processes_begin_to_count_at_the_same_time_counts_once(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets.write(record("a", "0.25"))
    other = budgets.open("other")
    each = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    read_sums = ledger_sums.read_sums

    def read_while_the_other_registers(*arguments: Any) -> Any:
        monkeypatch.setattr(ledger_sums, "read_sums", read_sums)
        other.folding.register([each], NOW)
        return read_sums(*arguments)

    monkeypatch.setattr(ledger_sums, "read_sums", read_while_the_other_registers)
    budgets.store.folding.register([each], NOW)

    assert budgets.figures(each) == {"participant ada": usd("0.25", "0")}


def test_counters_of_a_caller_are_found_among_those_of_others(budgets: BudgetsUnderTest) -> None:
    each = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    budgets.store.follow(CounterPlan((MONTH, each)), NOW)
    budgets.write(record("a", "0.25"), record("b", "0.5", replace(CALLER, participant="eve")))
    budgets.store.folding.fold()

    own = budgets.store.list_counters_of(Spender(CALLER.project_id, CALLER.participant))

    assert sorted((state.subject, state.settled) for state in own) == [
        ("", Decimal("0.75")),
        ("participant ada", Decimal("0.25")),
    ]


def test_counters_that_no_budget_limits_are_not_listed(budgets: BudgetsUnderTest) -> None:
    caller = replace(CALLER, token_ids=("tok_root", "tok_child"))
    budgets.store.follow(CounterPlan((MONTH, TOKEN_TOTAL)), NOW)
    budgets.write(record("a", "0.25", caller))
    budgets.store.folding.fold()
    child = TokenBudget(CALLER.project_id, caller.token_ids, "ada", Decimal(1), None)
    budgets.store.note_stated([child])

    def list_subjects(*kinds: CounterKind) -> list[tuple[Period, str]]:
        limits = BudgetLimits({"project-a": tuple(Budget(kind, Decimal(1)) for kind in kinds)})
        return sorted((state.kind.period, state.subject) for state in budgets.store.list_limited_counters(limits, NOW))

    assert list_subjects() == [(Period.TOTAL, "tok_child")]
    assert list_subjects(MONTH) == [(Period.MONTH, ""), (Period.TOTAL, "tok_child")]
    assert list_subjects(TOKEN_TOTAL) == [(Period.TOTAL, "tok_child"), (Period.TOTAL, "tok_root")]


def test_of_many_counters_the_highest_and_those_with_a_limit_of_their_own_are_listed(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "MAX_LISTED", 2)
    each = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    budgets.store.follow(CounterPlan((each,)), NOW)
    spends = {"ada": "0.25", "bob": "9", "eve": "10", "kim": "0.5", "tom": "0.75"}
    budgets.write(*(record(name, usd, replace(CALLER, participant=name)) for name, usd in spends.items()))
    budgets.store.folding.fold()
    change = BudgetChange("project-a", each, "participant kim", Decimal(5), None, NOW, "admin")
    limits = BudgetLimits({"project-a": (Budget(each, Decimal(1)),)}, {"project-a": (change,)})

    def list_subjects(at: datetime) -> list[str]:
        return sorted(state.subject for state in budgets.store.list_limited_counters(limits, at))

    assert list_subjects(NOW) == ["participant bob", "participant eve", "participant kim"]
    assert list_subjects(NOW + timedelta(days=40)) == ["participant kim"]


def test_counters_of_ended_periods_are_deleted_some_at_a_time(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_MAX_IDS", 2)
    day, total = CounterKind(Scope.PARTICIPANT, Period.DAY), CounterKind(Scope.PARTICIPANT, Period.TOTAL)
    budgets.store.folding.register([day, total], NOW)
    names = ("ann", "ben", "cid", "dan", "eve")
    budgets.write(*(record(name, "0.1", replace(CALLER, participant=name), basis=Basis.UNSETTLED) for name in names))
    for name in names:
        budgets.reserve(name, "0.5", "1", kind=day, caller=replace(CALLER, participant=name))
    budgets.store.folding.fold()
    later = NOW + timedelta(days=2)

    left = []
    while budgets.store.folding.forget_ended(later):
        left.append((len(budgets.figures(day)), len(list(budgets.store.iterate_reservations()))))

    assert left == [(3, 3), (1, 1)]
    assert budgets.figures(day) == {}
    assert list(budgets.store.iterate_reservations()) == []
    assert budgets.figures(total) == {f"participant {name}": usd("0.1", "0") for name in names}


def test_budgets_open_while_a_transaction_of_another_process_changes_them(budgets: BudgetsUnderTest) -> None:
    """With SQLite, such a transaction holds the lock of the whole file."""
    if isinstance(budgets.address, Path):
        pytest.skip("needs PostgreSQL")
    changing = budgets.open("changing")._budgets
    opened = threading.Event()

    def open_another() -> None:
        budgets.open("opening")
        opened.set()

    thread = threading.Thread(target=open_another)
    with changing.transaction():
        changing.run("UPDATE budget_counters SET reserved = '0'")
        changing.run("UPDATE budget_reservations SET total = '0'")
        changing.fetch_rows("SELECT 1")  # the two are under way
        thread.start()
        is_open = opened.wait(30)
    thread.join()

    assert is_open
