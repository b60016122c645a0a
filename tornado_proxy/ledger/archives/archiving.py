"""Writes old records to archives, and verifies archives against the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tornado_proxy.ledger.archives.files import (
    ArchivedRecord,
    ArchiveError,
    ChainLink,
    append_file,
    read_chain,
    read_file,
    verify_file,
)
from tornado_proxy.ledger.columns import RECORD_COLUMNS, SETTLED_COLUMNS
from tornado_proxy.ledger.database import Backend, Database, Read
from tornado_proxy.ledger.schema import SET_META
from tornado_proxy.ledger.sums.rollup_rows import join_amount

#: The key in `meta` of the hash of the chain's last line.
HEAD_KEY = "archive_head"

#: The columns of the rows that an archived record has.
RECORD_NAMES = ("seq", *RECORD_COLUMNS)
SETTLEMENT_NAMES = ("request_id", *SETTLED_COLUMNS, "settled_at")

_FINAL = "(r.basis <> 'pending' OR s.request_id IS NOT NULL)"
_JOINED = (
    "FROM records r LEFT JOIN settlements s ON s.request_id = r.request_id "
    "LEFT JOIN given_up g ON g.request_id = r.request_id"
)


def _columns(table: str, names: Sequence[str]) -> str:
    return ", ".join(f'{table}."{name}"' for name in names)


SELECT_ARCHIVED = (
    f"SELECT {_columns('r', RECORD_NAMES)}, {_columns('s', SETTLEMENT_NAMES)}, {_columns('g', SETTLEMENT_NAMES)} "
    f"{_JOINED}"
)
_SELECT_DAY = f"{SELECT_ARCHIVED} WHERE r.started_at >= ? AND r.started_at < ? AND {_FINAL} ORDER BY r.seq"
_SELECT_DAYS = "SELECT DISTINCT substr(started_at, 1, 10) FROM records WHERE started_at < ? ORDER BY 1"
_SELECT_HEAD = "SELECT value FROM meta WHERE key = ?"
_SELECT_ROLLED = (
    "SELECT sum(requests), sum(subtotal_micro), sum(subtotal_rest), max(subtotal_places), sum(surcharge_micro), "
    "sum(surcharge_rest), max(surcharge_places) FROM rollups WHERE span = 'day' AND start = ?"
)
_SELECT_LEFT = "SELECT count(*) FROM records WHERE started_at >= ? AND started_at < ?"

#: The last moment of a day in the text of a time, exclusive.
END_OF_DAY = "T24"


@dataclass(frozen=True, slots=True)
class Verified:
    """The contents of archives."""

    files: int
    records: int
    total: Decimal


def archive_records(
    backend: Backend, before: str, folder: Path, report: Callable[[ChainLink], None]
) -> list[ChainLink]:
    """Write the records that began before a day (YYYY-MM-DD), and whose figures are final, to archives.

    Records that the folder has already are left out.  `report` is called with each new file.

    Raises:
        ArchiveError: the folder cannot be written, or its chain is not that of the ledger.
        LedgerUnavailable: the ledger cannot be read.
        StoreError: the ledger cannot be written.
    """
    chain = read_chain(folder)
    check_head(backend, chain)
    with backend.read() as read:
        days = [str(day) for (day,) in read(_SELECT_DAYS, (before,))]
    written: list[ChainLink] = []
    for day in days:
        known = {_find_id(archived) for link in chain if link.day == day for archived in read_file(folder, link)}
        with backend.read() as read:
            new = _list_new(read, day, known)
            first = next(new, None)
            if first is None:
                continue
            link = append_file(folder, day, _chain_iterators(first, new), chain)
        chain.append(link)
        _store_head(backend, link)
        written.append(link)
        report(link)
    return written


def verify_archives(folder: Path, backend: Backend | None) -> Verified:
    """Read all archives of a folder, and return their contents.

    With a ledger, also compare the chain with the ledger's, and pruned days with its sums.

    Raises:
        ArchiveError: a file is missing or changed, or differs from the ledger.
        LedgerUnavailable: the ledger cannot be read.
    """
    chain = read_chain(folder)
    for link in chain:
        verify_file(folder, link)
    unknown = {path.name for path in folder.glob("*.jsonl.gz")} - {link.file for link in chain}
    if unknown:
        raise ArchiveError(f"{folder}: {', '.join(sorted(unknown))} are in no line of the chain; remove them")
    if backend is not None:
        check_head(backend, chain)
        with backend.read(snapshot=True) as read:
            _compare_sums(read, chain)
    total = sum((Decimal(link.total) for link in chain), Decimal(0))
    return Verified(len(chain), sum(link.records for link in chain), total)


def check_head(backend: Backend, chain: Sequence[ChainLink]) -> None:
    """Raise ArchiveError if the chain does not end where the ledger's last archive does."""
    with backend.read() as read:
        head = next((str(value) for (value,) in read(_SELECT_HEAD, (HEAD_KEY,))), "")
    # A crash after a file was written and before the ledger knew it leaves one link more.
    if head not in {link.hash for link in chain[-2:]} | ({""} if len(chain) < 2 else set()):
        raise ArchiveError(
            "the chain of the folder does not end with the ledger's last archive; name the folder of that ledger, or "
            "restore its files"
        )


def split_values(values: Sequence[object]) -> ArchivedRecord:
    """Return the archived record of a row of SELECT_ARCHIVED."""
    first, second = len(RECORD_NAMES), len(RECORD_NAMES) + len(SETTLEMENT_NAMES)
    return {
        "record": dict(zip(RECORD_NAMES, values[:first], strict=True)),
        "settlement": _make_settlement(values[first:second]),
        "given_up": _make_settlement(values[second:]),
    }


def _make_settlement(values: Sequence[object]) -> dict[str, object] | None:
    return None if values[0] is None else dict(zip(SETTLEMENT_NAMES, values, strict=True))


def _list_new(read: Read, day: str, known: set[str]) -> Iterator[ArchivedRecord]:
    for values in read(_SELECT_DAY, (day, day + END_OF_DAY)):
        archived = split_values(values)
        if _find_id(archived) not in known:
            yield archived


def _chain_iterators(first: ArchivedRecord, others: Iterator[ArchivedRecord]) -> Iterator[ArchivedRecord]:
    yield first
    yield from others


def _find_id(archived: ArchivedRecord) -> str:
    assert archived["record"] is not None
    return str(archived["record"]["request_id"])


def _store_head(backend: Backend, link: ChainLink) -> None:
    db: Database = backend.connect(create=False)
    try:
        db.run(SET_META, (HEAD_KEY, link.hash))
    finally:
        db.close()


def _compare_sums(read: Read, chain: Sequence[ChainLink]) -> None:
    """Raise ArchiveError if a day without records in the ledger has other sums there than in the archives."""
    totals: dict[str, tuple[int, Decimal]] = {}
    for link in chain:
        records, total = totals.get(link.day, (0, Decimal(0)))
        totals[link.day] = (records + link.records, total + Decimal(link.total))
    for day, (records, total) in totals.items():
        ((left,),) = read(_SELECT_LEFT, (day, day + END_OF_DAY))
        ((requests, *sums),) = read(_SELECT_ROLLED, (f"{day}T00:00:00.000Z",))
        if left or requests is None:
            continue
        numbers = [int(number) for number in sums]
        rolled = join_amount(*numbers[:3]) + join_amount(*numbers[3:])
        if (int(requests), rolled) != (records, total):
            raise ArchiveError(
                f"{day}: the ledger's sums have {requests} records of {rolled:f} USD, the archives {records} of "
                f"{total:f}"
            )
