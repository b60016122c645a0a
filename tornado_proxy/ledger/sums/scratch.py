"""A scratch file with the tables of a ledger, for the sums that a day should have.

The sums are made by the statements that add records to those of a ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import SQLITE
from tornado_proxy.ledger.schema import make_tables
from tornado_proxy.ledger.sqlite.scratch_file import ScratchFile, open_scratch_file
from tornado_proxy.ledger.sums.days import delete_day
from tornado_proxy.ledger.sums.rollups import INSERTS, AddedRows


@contextlib.contextmanager
def open_scratch() -> Iterator[ScratchFile]:
    """Yield a connection to a scratch file without sums, which ends with it."""
    with open_scratch_file() as db:
        make_tables(db, SQLITE)
        yield db


def add_rows(scratch: Database, added: Iterable[AddedRows]) -> None:
    """Add records to the sums of a scratch file."""
    for rows in added:
        with scratch.transaction():
            for insert in INSERTS.values():
                insert(scratch, rows)


def clear_day(scratch: Database, day: str) -> None:
    """Delete the sums of a day from a scratch file, before those of the next day."""
    with scratch.transaction():
        delete_day(scratch, day)
        scratch.run("DELETE FROM item_shapes")
