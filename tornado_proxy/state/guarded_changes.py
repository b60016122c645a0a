"""Makes the change of one request of a program: at most once for an Idempotency-Key, or, in a dry run, not at all.

    idempotency_keys    the SHA-256 of each key that was used in the last day, and the id of the thing that it changed

A repeated key is refused, not answered again: the first response can hold a secret, which is stored nowhere.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tornado_proxy.domain.errors import IdempotencyKeyUsed
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

#: How long a key is remembered.  A client repeats a request within minutes; a day bounds the table.
_KEPT = timedelta(days=1)

_DELETE_OLD = "DELETE FROM idempotency_keys WHERE used_at < ?"
_SELECT = "SELECT used_at, subject FROM idempotency_keys WHERE digest = ?"
_INSERT = "INSERT INTO idempotency_keys (digest, used_at, subject) VALUES (?, ?, ?)"


def _create_keys(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS idempotency_keys (
    digest {sql.text} PRIMARY KEY,
    used_at {sql.text} NOT NULL,
    subject {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"idempotency_keys": _create_keys}


class Changes(Protocol):
    """Something that makes changes: a StateStore, or GuardedChanges."""

    def change(self, actor: str, action: str, subject: str) -> AbstractContextManager[Database]:
        """Run the statements of a `with` block as one change; see StateStore.change()."""


@dataclass(frozen=True, slots=True)
class GuardedChanges:
    """Makes changes in `changes` for one request.

    Attributes:
        changes: Makes them.
        idempotency_key: The request's key; None if it has none.
        dry_run: True to undo each change at its end, after all its checks.
    """

    changes: Changes
    idempotency_key: str | None = None
    dry_run: bool = False

    @contextlib.contextmanager
    def change(self, actor: str, action: str, subject: str) -> Iterator[Database]:
        """Run the statements of a `with` block as one change.

        Raises:
            IdempotencyKeyUsed: the key was used for an earlier change.
        """
        with contextlib.suppress(_DryRunEnds), self.changes.change(actor, action, subject) as db:
            if self.idempotency_key is not None:
                _claim(db, self.idempotency_key, subject, datetime.now(UTC))
            yield db
            if self.dry_run:
                raise _DryRunEnds


class _DryRunEnds(Exception):  # no error: it rolls the transaction back
    pass


def _claim(db: Database, key: str, subject: str, now: datetime) -> None:
    """Store the key with the id of the changed thing, in the transaction of the change."""
    db.run(_DELETE_OLD, (format_time(now - _KEPT),))
    digest = hashlib.sha256(key.encode()).hexdigest()
    for used_at, earlier in db.fetch_rows(_SELECT, (digest,)):
        raise IdempotencyKeyUsed(
            f"this Idempotency-Key was used at {used_at} for {earlier}, which was changed then and is not changed "
            "again; use another key for another change"
        )
    db.run(_INSERT, (digest, format_time(now), subject))
