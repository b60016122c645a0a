"""What a store asks of its database: a connection that runs SQL, and tells a broken store from a faulty value."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from tornado_proxy.ledger.dialect import Dialect


class StoreError(Exception):
    """The store as a whole does not work.  The message names the store, says why, and what an operator can do."""


class Database(Protocol):
    """One connection, used by one thread.

    Every method may raise StoreError; what else it raises is the fault of the values that it was given.
    """

    @property
    def name(self) -> str:
        """What messages call the store: a path, or a URL without its password."""

    @property
    def dialect(self) -> Dialect:
        """Its SQL."""

    def tables(self) -> frozenset[str]:
        """The tables that are there."""

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing of what runs within; committed when it is left."""

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run a statement.  Within a transaction its fault may show as late as at its end."""

    def script(self, sql: str) -> None:
        """Run statements without parameters in a transaction of their own."""

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a query."""

    def check(self) -> None:
        """Find out whether a write would work, as far as that is cheap to know."""

    def close(self) -> None:
        """Close the connection."""
