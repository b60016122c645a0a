"""The records that this process has just committed: the budgets count them without reading them from the ledger.

Only SQLite tells the numbers of inserted rows: it runs one transaction at a time, so those of one are consecutive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.dialect import Values

#: The columns of a record that are kept, in the order of their values.
COLUMNS = (
    "request_id",
    "total",
    "subtotal",
    "started_at",
    "ended_at",
    "basis",
    "project_id",
    "participant",
    "user",
    "issuer",
    "credential_id",
    "labels",
    "token_ids",
    "agent_session",
)

#: Transactions whose records are kept, some seconds of them.  Those before them are read from the ledger.
MAX_BATCHES = 64

# In C: this is done for each record.
_select = itemgetter(*map(RECORD_COLUMNS.index, COLUMNS))


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """The records of one transaction: their seqs, and the values of COLUMNS."""

    seqs: range
    rows: Sequence[tuple[Any, ...]]


class CommittedRecords:
    """A bounded queue that the writer thread fills, and one follower empties."""

    def __init__(self) -> None:
        #: False while the records have no follower: then none are kept.
        self.is_followed = False
        self._batches: deque[CommittedBatch] = deque(maxlen=MAX_BATCHES)

    def add(self, seqs: range | None, rows: Sequence[Values]) -> None:
        """Keep the rows, by RECORD_COLUMNS, of a transaction that is committed, if their seqs are known."""
        if self.is_followed and seqs:
            self._batches.append(CommittedBatch(seqs, [_select(row) for row in rows]))

    def take(self) -> list[CommittedBatch]:
        """Return the batches since the last call, in the order of their seqs."""
        return [self._batches.popleft() for _ in range(len(self._batches))]
