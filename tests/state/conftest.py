"""The databases that the state is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state.store import StateStore


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerAddress:
    """Return the address of an empty database of each kind in turn."""
    if request.param == "postgresql":
        return PostgresAddress(request.getfixturevalue("postgres_database"), None, tmp_path / "journal")
    return tmp_path / "ledger.db"


MakeStore = Callable[[], StateStore]


@pytest.fixture
def make_store(address: LedgerAddress) -> Iterator[MakeStore]:
    """Return a function that makes stores on one database, as several processes do."""
    stores: list[StateStore] = []

    def make() -> StateStore:
        stores.append(StateStore(make_backend(address, fsync=True)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> StateStore:
    return make_store()
