"""Makes the sums by hour and day again from the records, a day in each transaction."""

from __future__ import annotations

from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rollups import CORRECT_SHAPES, INSERTS, lock_cursors, roll_up
from tornado_proxy.ledger.sum_days import delete_day, list_days, read_day

#: A text after every day.
END_OF_TIME = "~"


def catch_up(db: Database, dialect: Dialect) -> None:
    """Add all records to the sums that they lack."""
    while roll_up(db, dialect):
        pass


def rebuild(db: Database, dialect: Dialect, since: str = "", until: str = END_OF_TIME) -> None:
    """Make the sums of some days again (YYYY-MM-DD, `until` is exclusive); those of pruned records are kept.

    Raises:
        StoreError: the database fails.
    """
    catch_up(db, dialect)
    for day in list(list_days(db.fetch_rows, since, until)):
        while not _rebuild_day(db, dialect, day):
            catch_up(db, dialect)


def _rebuild_day(db: Database, dialect: Dialect, day: str) -> bool:
    """Make the sums of a day again; return False if a process of an earlier version has moved some of the cursors."""
    with db.transaction():
        positions = set(lock_cursors(db, dialect).values())
        if len(positions) > 1:
            return False
        # Records can have been pruned since the days were listed.
        if day in list_days(db.fetch_rows, day, day + END_OF_TIME):
            delete_day(db, day)
            for rows in read_day(db.fetch_rows, day, positions.pop()):
                db.insert(CORRECT_SHAPES, rows.items.shapes)
                for insert in INSERTS.values():
                    insert(db, rows)
    return True
