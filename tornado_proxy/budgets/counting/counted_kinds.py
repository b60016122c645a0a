"""The kinds of counters that are counted, in tables of the budgets' database.

    new ── begin_kinds ──> counted from now on, and incomplete ── sums of the ledger added ──> complete

A kind stays incomplete if the process dies that adds the sums; the next one that needs the kind adds those that lack.
"""

from __future__ import annotations

from collections.abc import Iterable

from tornado_proxy.domain.budgets.counter import CounterKind, decode_kind, encode_kind
from tornado_proxy.ledger.database import Database

_SELECT = "SELECT kind FROM budget_kinds"
_INSERT = "INSERT INTO budget_kinds (kind) VALUES (?) ON CONFLICT (kind) DO NOTHING"

# No table of their own: a version that has none of them counts them as the others.
_INCOMPLETE = "incomplete "
_SELECT_INCOMPLETE = "SELECT 1 FROM budget_meta WHERE key = ?"
_INSERT_INCOMPLETE = "INSERT INTO budget_meta (key, value) VALUES (?, '') ON CONFLICT (key) DO NOTHING"
_DELETE_INCOMPLETE = "DELETE FROM budget_meta WHERE key = ?"


def read_kinds(db: Database) -> list[CounterKind]:
    """Return the kinds that are counted."""
    return [decode_kind(str(kind)) for (kind,) in db.fetch_rows(_SELECT)]


def begin_kinds(db: Database, kinds: Iterable[CounterKind]) -> None:
    """Count kinds from now on, in a transaction that alone counts."""
    counted = set(read_kinds(db))
    for text in sorted(encode_kind(kind) for kind in kinds if kind not in counted):
        db.run(_INSERT, (text,))
        db.run(_INSERT_INCOMPLETE, (_INCOMPLETE + text,))


def list_incomplete(db: Database, kinds: Iterable[CounterKind]) -> list[CounterKind]:
    """Return those of the kinds to which the sums of earlier records are not added yet."""
    return [kind for kind in kinds if db.fetch_rows(_SELECT_INCOMPLETE, (_INCOMPLETE + encode_kind(kind),))]


def complete_kinds(db: Database, kinds: Iterable[CounterKind]) -> None:
    """Note that kinds lack nothing, in a transaction."""
    for kind in kinds:
        db.run(_DELETE_INCOMPLETE, (_INCOMPLETE + encode_kind(kind),))
