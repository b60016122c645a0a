"""Reads the reservations that are not freed, and sums them by counter; there can be any number of them.

A request of unknown cost is held until its period ends, which is never with a `total` budget.  So the rows are
read as they are fetched, and of each counter only the sums and the oldest reservations stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counting.counters import CounterKey, decode_keys, key_of_state
from tornado_proxy.domain.budgets.counter import Amount, CounterState
from tornado_proxy.ledger.database import Database

#: Reservations that a report lists of each counter, the oldest ones, and of all counters together.  One takes 1 KB.
MAX_LISTED_OF_COUNTER, MAX_LISTED = 100, 10_000

_SELECT_OPEN = (
    "SELECT request_id, state, started_at, total, subtotal, counters FROM budget_reservations UNION ALL "
    "SELECT request_id, 'open', started_at, total, subtotal, counters FROM leased_requests "
    "ORDER BY started_at, request_id"
)


@dataclass(frozen=True, slots=True)
class OpenReservation:
    """A reservation that is not freed yet: its state (open, held, pending), and the most USD that it can cost."""

    request_id: str
    state: str
    started_at: datetime
    total: Decimal
    subtotal: Decimal
    counters: tuple[CounterKey, ...]

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter reserves."""
        return amount.choose(self.total, self.subtotal)


@dataclass(slots=True)
class CounterReservations:
    """The reservations of one counter.

    Attributes:
        held: The USD of all whose request is not under way: those that are held or pending.
        oldest: The first ones, oldest first.
        others: The number of the ones after them.
        others_usd: The USD of the ones after them.
    """

    held: Decimal = Decimal(0)
    oldest: list[OpenReservation] = field(default_factory=list)
    others: int = 0
    others_usd: Decimal = Decimal(0)


#: Reservations by CounterKey.values.
ReservationsByCounter = Mapping[tuple[str, str, str, str], CounterReservations]


def iterate_reservations(db: Database) -> Iterator[OpenReservation]:
    """Yield the reservations that are not freed yet, oldest first.  Run no other statement before the last one."""
    for request_id, state, started_at, total, subtotal, counters in db.iterate_rows(_SELECT_OPEN):
        yield OpenReservation(
            str(request_id),
            str(state),
            datetime.fromisoformat(str(started_at)),
            Decimal(str(total)),
            Decimal(str(subtotal)),
            decode_keys(str(counters)),
        )


def sum_by_counter(
    reservations: Iterable[OpenReservation], counters: Iterable[CounterState], *, list_oldest: bool = False
) -> ReservationsByCounter:
    """Return the reservations of each of `counters`.

    Args:
        reservations: All reservations, oldest first.
        counters: The counters that matter.
        list_oldest: True to keep the oldest reservations too, False to sum them alone.
    """
    sums = {key_of_state(state).values: (state.kind.amount, CounterReservations()) for state in counters}
    listed = 0
    for reservation in reservations:
        for key in reservation.counters:
            if key.values not in sums:
                continue
            amount, own = sums[key.values]
            usd = reservation.amount(amount)
            if reservation.state != "open":
                own.held += usd
            if list_oldest and len(own.oldest) < MAX_LISTED_OF_COUNTER and listed < MAX_LISTED:
                own.oldest.append(reservation)
                listed += 1
            else:
                own.others += 1
                own.others_usd += usd
    return {key: own for key, (_, own) in sums.items()}
