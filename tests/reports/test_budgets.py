"""Reports of budgets: the limit in force, and what is reserved and held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tornado_proxy.budgets.counting.counters import make_key
from tornado_proxy.budgets.open_reservations import OpenReservation, sum_by_counter
from tornado_proxy.domain.budgets.budget import Budget, BudgetChange, TokenBudget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, CounterKind, CounterState, Interval, Period, Scope
from tornado_proxy.reports.budgets import BudgetFigures, find_origin, list_rows, show_row

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
NOVEMBER = Interval(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
MONTH = CounterKind(Scope.PROJECT, Period.MONTH)
EACH = CounterKind(Scope.PARTICIPANT, Period.MONTH)


def change(kind: CounterKind, subject: str | None, limit: str | None, until: datetime | None = None) -> BudgetChange:
    return BudgetChange("p", kind, subject, None if limit is None else Decimal(limit), until, NOW, "admin")


def test_limit_of_the_state_is_in_force_until_its_time() -> None:
    limits = BudgetLimits({"p": (Budget(MONTH, Decimal(500)),)}, {"p": (change(MONTH, "", "800", NOVEMBER.end),)})

    (row,) = list_rows(limits, BudgetFigures(), NOW)
    (later,) = list_rows(limits, BudgetFigures(), NOW + timedelta(days=3))

    assert (row.limit, row.configured) == (Decimal(800), Decimal(500))
    assert (later.limit, later.change) == (Decimal(500), None)


def test_limit_of_one_participant_replaces_that_of_all() -> None:
    changes = (change(EACH, None, "7"), change(EACH, "participant ada", None))
    limits = BudgetLimits({"p": (Budget(EACH, Decimal(5)),)}, {"p": changes})
    counters = [CounterState(EACH, "p", "participant bob", NOVEMBER, Decimal(1), Decimal(0))]

    rows = list_rows(limits, BudgetFigures(counters), NOW)

    assert [(row.state.subject, row.limit) for row in rows] == [("participant ada", None), ("participant bob", 7)]


def test_token_that_states_a_budget_is_listed_until_it_expires_and_changed_by_its_own_id_alone() -> None:
    expiry = NOW + timedelta(hours=8)
    root = TokenBudget("p", ("tok_root",), "ada", Decimal(3), None)
    child = TokenBudget("p", ("tok_root", "tok_child"), "ada", Decimal(2), expiry)
    each_token = Budget(TOKEN_TOTAL, Decimal(1), strict=True)
    changes = {"p": (change(TOKEN_TOTAL, None, "0.5"), change(TOKEN_TOTAL, "tok_child", "4"))}
    of_all = {"p": (changes["p"][0],)}
    figures = BudgetFigures(stated=[root, child])

    def show(limits: BudgetLimits) -> list[tuple[object, ...]]:
        rows = list_rows(limits, figures, NOW)
        return [(row.state.subject, row.limit, row.configured, row.strict, find_origin(row)) for row in rows]

    assert show(BudgetLimits({"p": ()})) == [
        ("tok_child", 2, 2, False, "token"),
        ("tok_root", 3, 3, False, "token"),
    ]
    # A configured budget per token limits the token of the API key, together with the tokens narrowed from it.
    assert show(BudgetLimits({"p": (each_token,)}, of_all)) == [
        ("tok_child", 2, 2, False, "token"),
        ("tok_root", Decimal("0.5"), 1, True, "configuration"),
    ]
    assert show(BudgetLimits({"p": (each_token,)}, changes))[0] == ("tok_child", 4, 2, False, "token")
    (shown, _) = list_rows(BudgetLimits({"p": ()}), figures, NOW)
    assert (shown.end, show_row(shown)["holder"]) == (expiry, "ada")


def test_held_amounts_are_not_among_the_reserved_ones() -> None:
    key = make_key(MONTH, "p", "", NOW)
    reservations = [
        OpenReservation(name, state, NOW, Decimal(usd), Decimal(usd), (key,))
        for name, state, usd in (("req_1", "open", "0.5"), ("req_2", "held", "0.25"), ("req_3", "pending", "0.125"))
    ]
    counter = CounterState(MONTH, "p", "", NOVEMBER, Decimal(3), Decimal("0.875"))

    figures = BudgetFigures([counter], sum_by_counter(reservations, [counter]))
    (row,) = list_rows(BudgetLimits({"p": (Budget(MONTH, Decimal(5)),)}), figures, NOW)

    shown = show_row(row)
    assert (shown["settled"], shown["reserved"], shown["held"]) == ("3", "0.5", "0.375")
    assert (shown["start"], shown["end"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")


@pytest.mark.parametrize(
    ("scope", "subject", "members"),
    [
        (Scope.USER, "user a b https://id.example.com", {"user": "a b", "issuer": "https://id.example.com"}),
        (Scope.USER, "user a b", {"user": "a b", "issuer": None}),
        (Scope.PARTICIPANT, "participant x y", {"participant": "x y", "user": None}),
        (Scope.ACCESS_KEY, "ak_1", {"access_key": "ak_1"}),
        (Scope.TOKEN, "tok_1", {"token": "tok_1", "access_key": None}),
        (Scope.AGENT_SESSION, "s-1", {"agent_session": "s-1", "token": None}),
        (Scope.LABEL, "red", {"label": "team", "value": "red"}),
    ],
)
def test_document_names_the_subject(scope: Scope, subject: str, members: dict[str, str | None]) -> None:
    kind = CounterKind(scope, Period.MONTH, label="team" if scope is Scope.LABEL else None)
    counter = CounterState(kind, "p", subject, NOVEMBER, Decimal(1), Decimal(0))

    (row,) = list_rows(BudgetLimits({"p": (Budget(kind, Decimal(5)),)}), BudgetFigures([counter]), NOW)

    assert show_row(row).items() >= members.items()
