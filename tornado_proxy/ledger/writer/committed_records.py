"""The records that this process has just committed: the budgets count them without reading them from the ledger.

Only SQLite tells the numbers of inserted rows: it runs one transaction at a time, so those of one are consecutive.

The writer thread groups them as it commits them: their rows are in the processor's cache then, and need not be kept.
What is kept of a record until it is counted is small for the same reason.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.dialect import Values

#: The columns whose values the records of a group share: the basis, and those of whom a record is charged to.
SHARED_COLUMNS = (
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

#: Transactions whose records are kept: some seconds of them, fewer if each turn of the event loop makes one, as with
#: fsync.  Those before them are read from the ledger.
MAX_BATCHES = 256

#: Characters of a time up to its second.
_SECOND = 19

# In C: this is done for each record.
_select_shared = itemgetter(*map(RECORD_COLUMNS.index, SHARED_COLUMNS))
_select_times = itemgetter(*map(RECORD_COLUMNS.index, ("started_at", "ended_at")))
_select_own = itemgetter(*map(RECORD_COLUMNS.index, ("request_id", "total", "subtotal")))


@dataclass(frozen=True, slots=True)
class CommittedGroup:
    """The records of one transaction that began in one second, ended in one, and share the values of SHARED_COLUMNS.

    Attributes:
        began, ended: The seconds, such as 2026-11-28T09:00:00.
        totals, subtotals: The amounts, with a space between two.
    """

    began: str
    ended: str
    shared: tuple[Any, ...]
    request_ids: Sequence[str]
    totals: str
    subtotals: str


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """The records of one transaction, and their seqs."""

    seqs: range
    groups: Sequence[CommittedGroup]


class CommittedRecords:
    """A bounded queue that the writer thread fills, and one follower empties."""

    def __init__(self) -> None:
        #: False while the records have no follower: then none are kept.
        self.is_followed = False
        self._batches: deque[CommittedBatch] = deque(maxlen=MAX_BATCHES)

    def add(self, seqs: range | None, rows: Sequence[Values]) -> None:
        """Keep the rows, by RECORD_COLUMNS, of a transaction that is committed, if their seqs are known."""
        if self.is_followed and seqs:
            self._batches.append(CommittedBatch(seqs, _group(rows)))

    def take(self) -> list[CommittedBatch]:
        """Return the batches since the last call, in the order of their seqs."""
        return [self._batches.popleft() for _ in range(len(self._batches))]


def _group(rows: Iterable[Values]) -> list[CommittedGroup]:
    members: defaultdict[tuple[str, str, tuple[Any, ...]], list[tuple[str, str, str]]] = defaultdict(list)
    for row in rows:
        began, ended = _select_times(row)
        members[began[:_SECOND], ended[:_SECOND], _select_shared(row)].append(_select_own(row))
    return [_make_group(key, own) for key, own in members.items()]


def _make_group(key: tuple[str, str, tuple[Any, ...]], own: Sequence[tuple[str, str, str]]) -> CommittedGroup:
    request_ids, totals, subtotals = zip(*own, strict=True)
    return CommittedGroup(*key, request_ids, " ".join(totals), " ".join(subtotals))
