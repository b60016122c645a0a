"""Budgets of a real ledger on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.budgets.backends import open_store
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterKind, CounterPlan, Period, Scope
from tornado_proxy.domain.budgets.refusal import BudgetRefusal
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.cost import Cost, CostBound
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestIntent, RequestRecord, Settlement
from tornado_proxy.domain.request_id import begin_of_ids
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.postgres import process_locks
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
CALLER = Caller("project-a", participant="ada", credential_id="key-1")
MONTH = CounterKind(Scope.PROJECT, Period.MONTH)


def cost(total: str, subtotal: str | None = None) -> Cost:
    """Return a cost of these USD."""
    return Cost((), Decimal(subtotal or total), Decimal(0), Decimal(total))


def make_id(name: str) -> str:
    """Return the id of a request of NOW; its random part is a name."""
    return begin_of_ids(NOW) + name


def intent(name: str, caller: Caller = CALLER, at: datetime = NOW) -> RequestIntent:
    """Return the intent of a request of `caller`."""
    return make_intent(make_id(name), caller=caller, started_at=at)


def record(name: str, total: str, caller: Caller = CALLER, **members: Any) -> RequestRecord:
    """Return the record of a request that cost `total` USD."""
    at = members.pop("at", NOW)
    return replace(make_record(intent(name, caller, at), cost=cost(total)), **members)


def settlement(name: str, total: str, **members: Any) -> Settlement:
    """Return the settlement of a request at `total` USD."""
    return Settlement(
        make_id(name), None, **{"basis": Basis.REPORTED, "cost": cost(total), "settled_at": NOW, **members}
    )


@dataclass
class BudgetsUnderTest:
    """The budgets of a ledger, as one process or several open them."""

    address: LedgerAddress
    opened: list[BudgetStore] = field(default_factory=list)
    all_locks: list[ProcessLocks] = field(default_factory=list)

    @property
    def store(self) -> BudgetStore:
        """The budgets of the first process."""
        return self.opened[0]

    def open(self, writer: str = "other", *, hold: bool = True, slices: Slices | None = None) -> BudgetStore:
        """Open the same budgets, as another process does, which lives until kill()."""
        store = open_store(self.address, self.locks(writer), slices=slices)
        self.opened.append(store)
        store.register()
        store.folding.hold = hold
        return store

    def kill(self, store: BudgetStore) -> None:
        """Free the locks of a process, as its death does."""
        store._databases.liveness.release()
        store._databases.locks.close()

    def close(self) -> None:
        """Close everything."""
        for store in self.opened:
            store.close()
        for locks in self.all_locks:
            locks.close()

    def locks(self, writer: str) -> ProcessLocks:
        """Return the locks of a process with the id `writer`, which has taken none."""
        locks = ProcessLocks(make_backend(self.address).files_path)
        locks.writer_id = writer.encode().hex().ljust(16, "0")
        self.all_locks.append(locks)
        return locks

    def write(self, *entries: RequestRecord | Settlement | RequestIntent) -> None:
        """Write records and settlements to the ledger; an intent alone is left by a process that died."""

        async def run() -> None:
            ledger = make_ledger(self.address)
            await ledger.open()
            for entry in entries:
                if isinstance(entry, Settlement):
                    await ledger.settle(entry)
                elif isinstance(entry, RequestRecord):
                    await ledger.begin(entry.intent)
                    await ledger.finish(entry)
            await ledger.close()

        asyncio.run(run())

    def reserve(
        self,
        name: str,
        bound: str,
        limit: str,
        *,
        strict: bool = False,
        kind: CounterKind = MONTH,
        caller: Caller = CALLER,
        at: datetime = NOW,
    ) -> BudgetRefusal | None:
        """Reserve `bound` USD for a request of a budget of `limit` USD."""
        budget = Budget(kind, Decimal(limit), strict=strict)
        return self.store.reserve([reservation(name, bound, budget, caller=caller, at=at)])[0]

    def figures(self, kind: CounterKind = MONTH) -> dict[str, tuple[Decimal, Decimal]]:
        """Return settled and reserved USD by subject, of the counters of a kind."""
        return {
            state.subject: (state.settled, state.reserved)
            for state in self.store.list_counters()
            if state.kind == kind and state.interval.begin <= NOW
        }


def reservation(name: str, bound: str, *budgets: Budget, caller: Caller = CALLER, at: datetime = NOW) -> Reservation:
    """Return a reservation of `bound` USD."""
    spender = Spender(caller.project_id, caller.participant, caller.user, caller.issuer, caller.credential_id)
    return Reservation(make_id(name), BudgetedSpender(spender, budgets), CostBound(Decimal(bound), Decimal(bound)), at)


def usd(*amounts: str) -> Sequence[Decimal]:
    """Return amounts as decimals."""
    return tuple(Decimal(amount) for amount in amounts)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_budgets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BudgetsUnderTest]:
    """Return the budgets of an empty ledger on each database in turn, which have no tables yet."""
    address: LedgerAddress = tmp_path / "ledger.db"
    if request.param == "postgresql":
        address = PostgresAddress(request.getfixturevalue("postgres_database"), None, tmp_path / "journal")
    create_ledger(address)
    under_test = BudgetsUnderTest(address)
    yield under_test
    under_test.close()


@pytest.fixture
def budgets(new_budgets: BudgetsUnderTest) -> BudgetsUnderTest:
    """Return budgets on each database in turn, which count by month and project."""
    new_budgets.open("this").follow(CounterPlan((MONTH,)), NOW)
    return new_budgets


@pytest.fixture
def slices() -> Slices:
    """Return the slices of a process."""
    return Slices()


@pytest.fixture
def store(budgets: BudgetsUnderTest, slices: Slices) -> BudgetStore:
    """Return the store of a process that leases."""
    return budgets.open("leasing", slices=slices)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is dead as soon as its lock is free, on PostgreSQL too."""
    monkeypatch.setattr(process_locks, "_GRACE_S", 0.0)


def create_ledger(address: LedgerAddress) -> None:
    """Make an empty ledger."""

    async def run() -> None:
        ledger = make_ledger(address)
        await ledger.open()
        await ledger.close()

    asyncio.run(run())
