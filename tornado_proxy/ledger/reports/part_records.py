"""SQL of the records that the sums by hour and day do not have, and of those of a part of a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.reports.records_query import UsageFilter, build_where


def list_others(read: Read, which: UsageFilter, rolled: Position) -> Iterator[tuple[str, Sequence[object]]]:
    """Yield SQL that selects the records which the sums do not have, with its parameters."""
    yield "seq > ?", (rolled.record,)
    yield "seq IS NULL", ()
    times = [("started_at >= ?", which.since), ("started_at < ?", which.until)]
    given = [(clause, value) for clause, value in times if value is not None]
    # An expression has no index: SQLite reads the few pending records by theirs.
    pending = " AND ".join([_PENDING, *(clause for clause, _ in given)])
    values = (rolled.record, rolled.change, *(value for _, value in given))
    ids = [str(request_id) for (request_id,) in read(f"SELECT request_id FROM records WHERE {pending}", values)]  # noqa: S608
    for start in range(0, len(ids), _MAX_IDS):
        some = ids[start : start + _MAX_IDS]
        yield f"request_id IN ({', '.join('?' * len(some))})", some


#: Request ids that one query names.
_MAX_IDS = 500

#: The pending records whose settlements the sums do not have.
_PENDING = (
    "basis = 'pending' AND +seq <= ? AND NOT EXISTS (SELECT 1 FROM changes c "
    "WHERE c.request_id = records.request_id AND c.kind = 'settlement' AND c.seq <= ?)"
)


def select_part(
    columns: Sequence[str], which: UsageFilter, clause: str, extra: Sequence[object]
) -> tuple[str, Sequence[object]]:
    """Return SQL of `columns` of the records that a filter and SQL `clause` select, and its parameters."""
    where, values = build_where(which)
    return f"SELECT {', '.join(columns)} FROM bills {add_clause(where, clause)}", [*values, *extra]  # noqa: S608


def add_clause(where: str, clause: str) -> str:
    """Return a WHERE clause that selects by SQL `clause` too, if it is not "", and reads the records by it."""
    where = where or "WHERE 1 = 1"
    if not clause:
        return where
    # An expression has no index: SQLite takes that of the project, and not the few records of the clause.
    where = where.replace("project_id =", "project_id || '' =").replace("started_at", "started_at || ''")
    return f"{where} AND {clause}"


def select_seqs(seqs: Sequence[int]) -> str:
    """Return SQL that selects records by their numbers, which are its parameters."""
    return f"seq IN ({', '.join('?' * len(seqs))})"
