"""Charges the time of containers, in the transaction that stores the records of the requests that used them.

    lock the rows of all containers of the batch ──> add each use to its life ──> line items of the record
                                                           └──> update the rows of the containers

Records and lives are committed together, so that a second is charged once, to one request: also after a crash, a retry
of the transaction, or a record that is written twice, and also by several processes on one database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

from msgspec import structs

from tornado_proxy.domain.container import ContainerLife, ContainerPrice, ContainerTime, add_use
from tornado_proxy.domain.cost import DERIVED_ITEMS, ZERO, BillRates, LineItem, merge_items
from tornado_proxy.domain.usage import Meter
from tornado_proxy.ledger.columns import RecordRow, SettlementRow
from tornado_proxy.ledger.container_rows import LIFE_COLUMNS, life_values, read_container_time, read_life
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert, quote_names
from tornado_proxy.ledger.pruned_requests import is_pruned
from tornado_proxy.ledger.rows import format_decimal, format_items, make_storable_text, read_line_items
from tornado_proxy.ledger.schema import INSERT_ALLOWANCES, INSERT_CONTAINERS
from tornado_proxy.pricing.book.calculator import bill

_SELECT_LIFE = f"SELECT {quote_names(LIFE_COLUMNS)} FROM containers WHERE provider = ? AND container_id = ?"  # noqa: S608  # names of ours
_UPDATE_LIFE = (
    f"UPDATE containers SET {', '.join(f'{name} = ?' for name in LIFE_COLUMNS)} "  # noqa: S608  # names of ours
    "WHERE provider = ? AND container_id = ?"
)
_SELECT_ALLOWANCE = "SELECT used_s FROM allowances WHERE provider = ? AND account = ? AND month = ?"
_UPDATE_ALLOWANCE = "UPDATE allowances SET used_s = ? WHERE provider = ? AND account = ? AND month = ?"

#: Line items of containers in one record; more are added up, as those of a batch are.
MAX_ITEMS = 20

#: The rows whose containers are charged: those of one table.
ChargedT = TypeVar("ChargedT", RecordRow, SettlementRow)

#: A container and an account's month.
_Container = tuple[str, str]
_Month = tuple[str, str, str]


def charge_containers(db: Database, dialect: Dialect, rows: Iterable[ChargedT], table: str) -> list[ChargedT]:
    """Return the rows of records or settlements with the time of the containers that their requests used.

    Must be called in the transaction that inserts the rows into `table`.
    """
    result = list(rows)
    numbers = [number for number, row in enumerate(result) if row.container_time]
    if not numbers:
        return result
    times = {number: _read(result[number]) for number in numbers}
    charges = _Charges(db, dialect)
    charges.lock([(times[number], result[number].request_id) for number in numbers])
    stored: set[str] = set()
    for number in numbers:
        request_id = result[number].request_id
        # After lock(): another process that writes the same record has committed it by now.
        if request_id not in stored and not _is_stored(db, table, result[number]):
            result[number] = charges.charge(result[number], times[number])
        stored.add(request_id)
    charges.store()
    return result


@dataclass(frozen=True, slots=True)
class _ChargedUse:
    """A container that a request used, its life with this use, and the seconds that the use costs."""

    container_id: str
    life: ContainerLife
    charged_s: Decimal
    free_s: Decimal


class _Charges:
    """The lives and allowances that one transaction changes."""

    def __init__(self, db: Database, dialect: Dialect) -> None:
        self._db = db
        self._dialect = dialect
        self._lives: dict[_Container, ContainerLife | None] = {}
        self._used: dict[_Month, Decimal] = {}

    def lock(self, times: list[tuple[ContainerTime, str]]) -> None:
        """Lock the rows of the containers that requests used, and read them; make those that are missing.

        Two transactions lock in the same order, so that neither waits for the other.
        """
        found = {
            (time.provider, use.container_id): (time.provider, use.container_id, time.project_id, request_id)
            for time, request_id in reversed(times)
            for use in time.uses
        }
        missing = (None,) * (len(INSERT_CONTAINERS.columns) - 4)
        for key in sorted(found):
            self._lives[key] = read_life(self._lock(INSERT_CONTAINERS, (*found[key], *missing), _SELECT_LIFE, key))
        for month in sorted(set(self._list_months(time for time, _ in times))):
            (used_s,) = self._lock(INSERT_ALLOWANCES, (*month, "0"), _SELECT_ALLOWANCE, month)
            self._used[month] = Decimal(str(used_s))

    def charge(self, row: ChargedT, time: ContainerTime) -> ChargedT:
        """Add the uses of a request to the lives of its containers; return its row with their line items."""
        items: list[LineItem] = []
        notes: dict[str, list[_ChargedUse]] = {}
        for use in time.uses:
            key = (time.provider, use.container_id)
            life, charged_s = add_use(self._lives[key], use, time)
            self._lives[key] = life
            free_s = ZERO if life.price is None else self._use_allowance(time, life.price, charged_s)
            items += [] if life.price is None else life.price.itemise(charged_s - free_s, free_s)
            notes.setdefault(use.note, []).append(_ChargedUse(use.container_id, life, charged_s, free_s))
        faults = {note: _describe(uses) for note, uses in notes.items()}
        return _complete(row, items, BillRates(time.surcharge_rate, time.discount_rate), faults)

    def store(self) -> None:
        """Update the rows."""
        for key, life in self._lives.items():
            if life is not None:
                self._db.run(_UPDATE_LIFE, (*life_values(life), *key))
        for month, used_s in self._used.items():
            self._db.run(_UPDATE_ALLOWANCE, (f"{used_s:f}", *month))

    def _lock(self, insert: Insert, row: tuple[object, ...], select: str, key: tuple[str, ...]) -> tuple[object, ...]:
        """Lock a row and return the columns that `select` names; insert it first if it is missing."""
        while True:
            self._db.insert(insert, [row])
            rows = self._db.fetch_rows(f"{select} {self._dialect.row_lock}", key)
            if rows:  # else another process has deleted the old row since
                return rows[0]

    def _list_months(self, times: Iterable[ContainerTime]) -> Iterator[_Month]:
        for time in times:
            lives = (self._lives[time.provider, use.container_id] for use in time.uses)
            prices = (*(use.price for use in time.uses), *(life.price for life in lives if life is not None))
            if any(price is not None and price.free_per_month_s for price in prices):
                yield _month(time)

    def _use_allowance(self, time: ContainerTime, price: ContainerPrice, charged_s: Decimal) -> Decimal:
        """Return the seconds of `charged_s` that are free."""
        used_s = self._used.get(_month(time), ZERO)
        free_s = max(ZERO, min(charged_s, price.free_per_month_s - used_s))
        if free_s:
            self._used[_month(time)] = used_s + free_s
        return free_s


def _read(row: RecordRow | SettlementRow) -> ContainerTime:
    time = read_container_time(str(row.container_time))
    uses = tuple(replace(use, container_id=make_storable_text(use.container_id)) for use in time.uses)
    return replace(time, uses=uses)


def _month(time: ContainerTime) -> _Month:
    return time.provider, time.account, time.month


def _is_stored(db: Database, table: str, row: RecordRow | SettlementRow) -> bool:
    """Return True if the row is in the table, or was until it was pruned."""
    if db.fetch_rows(f"SELECT 1 FROM {table} WHERE request_id = ?", (row.request_id,)):  # noqa: S608  # a name of ours
        return True
    return isinstance(row, RecordRow) and is_pruned(db, row.request_id, row.started_at)


def _complete(row: ChargedT, charged: list[LineItem], rates: BillRates, notes: dict[str, str]) -> ChargedT:
    """Return a row with the line items of its containers in place of those that its record assumed."""
    kept: list[LineItem] = [item for item in read_line_items(row.line_items) if not _is_assumed(item)]
    cost = bill((*kept, *charged), rates.surcharge, discount_rate=rates.discount)
    if len(charged) > MAX_ITEMS:
        cost = merge_items(cost)
    faults = [notes.get(fault, fault) for fault in json.loads(row.faults or "[]")]
    return structs.replace(
        row,
        line_items=format_items(cost.line_items),
        subtotal=format_decimal(cost.subtotal),
        surcharge=format_decimal(cost.surcharge),
        total=format_decimal(cost.total),
        faults=json.dumps(faults) if faults else None,
    )


def _is_assumed(item: LineItem) -> bool:
    """Return True for items that are computed again from the others, and for container time with a price."""
    return item.type in DERIVED_ITEMS or (item.type == Meter.CONTAINER_SECONDS and item.amount is not None)


def _describe(uses: Sequence[_ChargedUse]) -> str:
    """Return the fault that tells how the time of containers is known; `uses` are those of one note."""
    charged_s = sum((use.charged_s for use in uses), ZERO)
    lived_s = sum((use.life.charged_s for use in uses), ZERO)
    name = f"container {uses[0].container_id}" if len(uses) == 1 else f"{len(uses)} containers"
    if all(use.life.price is None for use in uses):
        return f"{name}: not created by a response that this ledger has; the time is not charged"
    if not charged_s:
        return f"{name}: no further time is charged; earlier requests were charged for {_seconds(lived_s)}"
    free_s = sum((use.free_s for use in uses), ZERO)
    free = f", of which {_seconds(free_s)} are free" if free_s else ""
    return (
        f"{name}: charged for {_seconds(charged_s)} of {_seconds(lived_s)}{free}; this is the time between known uses, "
        "at least the minimum, because no response states the whole life"
    )


def _seconds(amount: Decimal) -> str:
    return f"{amount.normalize():f} s"
