"""A new budget begins with the sums of the ledger, however far its sums by hour and day have come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec import structs

from tests.budgets.conftest import CALLER, NOW, BudgetsUnderTest, intent, record, settlement, usd
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, Period, Scope
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.sums.rollups import roll_up

BOB = replace(CALLER, participant="bob", credential_id="ak_1", token_ids=("tok_1", "tok_2"))

KINDS = {
    "project": CounterKind(Scope.PROJECT, Period.WEEK),
    "subtotal": CounterKind(Scope.PROJECT, Period.WEEK, Amount.SUBTOTAL),
    "hour": CounterKind(Scope.PARTICIPANT, Period.HOUR),
    "ever": CounterKind(Scope.PARTICIPANT, Period.TOTAL),
    "label": CounterKind(Scope.LABEL, Period.DAY, label="team"),
    "access key": CounterKind(Scope.ACCESS_KEY, Period.DAY),
    "token": CounterKind(Scope.TOKEN, Period.DAY),
    "session": CounterKind(Scope.AGENT_SESSION, Period.TOTAL),
}


def roll(budgets: BudgetsUnderTest, limit: int) -> None:
    """Add up to `limit` records, and with all records up to `limit` settlements, to the sums by hour and day."""
    backend = make_backend(budgets.address)
    db = backend.connect(create=False)
    roll_up(db, backend.dialect, limit)
    db.close()


# NOW is Saturday, 12:00.
@pytest.mark.parametrize("rolled", [(), (3,), (4, 4), (100,), (100, 100)])
def test_new_kinds_have_the_sums_of_their_periods(budgets: BudgetsUnderTest, rolled: tuple[int, ...]) -> None:
    labelled = structs.replace(intent("d"), labels={"team": "red"}, attribution=Attribution(agent_session="s-1"))
    budgets.write(
        record("a", "1", at=NOW - timedelta(days=7)),
        record("b", "2", at=NOW - timedelta(hours=1)),
        record("c", "4", BOB, cost=Cost((), Decimal(3), Decimal(1), Decimal(4))),
        structs.replace(record("d", "8"), intent=labelled),
        record("e", "0", basis=Basis.PENDING),
        record("f", "0", BOB, basis=Basis.PENDING),
        record("g", "0", basis=Basis.PENDING),
    )
    budgets.write(settlement("e", "16"))
    for limit in rolled:
        roll(budgets, limit)
    budgets.write(settlement("f", "32"), record("h", "64", at=NOW + timedelta(minutes=59)))
    budgets.store.folding.fold()
    budgets.store.folding.fold_settlements()

    budgets.store.folding.register(KINDS.values(), NOW)

    assert {name: spent(budgets, kind) for name, kind in KINDS.items()} == {
        "project": {"": "126"},
        "subtotal": {"": "125"},
        "hour": {"participant ada": "88", "participant bob": "36"},
        "ever": {"participant ada": "91", "participant bob": "36"},
        "label": {"red": "8"},
        "access key": {"ak_1": "36"},
        "token": {"tok_1": "36", "tok_2": "36"},
        "session": {"s-1": "8"},
    }
    assert budgets.store.folding.correct(NOW) == 0
    budgets.write(settlement("g", "128"))
    budgets.store.folding.fold_settlements()
    assert budgets.figures(KINDS["project"]) == {"": usd("254", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def spent(budgets: BudgetsUnderTest, kind: CounterKind) -> dict[str, str]:
    """Return the settled USD by subject, as text without trailing zeros."""
    return {subject: f"{settled.normalize():f}" for subject, (settled, _) in budgets.figures(kind).items() if settled}
