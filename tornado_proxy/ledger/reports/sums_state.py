"""How far the sums by hour and day have come, and which of them have all records of a time."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.sums.rollup_rows import ANNOTATIONS, LONG_ANNOTATIONS
from tornado_proxy.ledger.sums.rollups import CURSOR_NAME, SINCE_KEYS


@dataclass(frozen=True, slots=True)
class SumsState:
    """How far the sums have come.

    rolled: the position up to which records are in the sums.
    details_since: the time since which all those records are in the sums without people and by attribute, too; None if
        these are behind.
    items_since: the same of the sums by kind of line item and by annotations.
    """

    rolled: Position
    details_since: str | None
    items_since: str | None

    def has_details(self, since: str | None) -> bool:
        """Return True if the sums of the second cursor are complete from a time on; None is the beginning."""
        return self.details_since is not None and (since or "") >= self.details_since

    def has_items(self, since: str | None) -> bool:
        """Return True if the sums of all cursors are complete from a time on."""
        return self.has_details(since) and self.items_since is not None and (since or "") >= self.items_since

    def has_attribute(self, attribute: str, since: str | None) -> bool:
        """Return True if the sums by an attribute are complete from a time on."""
        return self.has_items(since) if attribute == ANNOTATIONS else self.has_details(since)


def read_state(read: Read) -> SumsState:
    """Return how far the sums have come."""
    names = (CURSOR_NAME, *SINCE_KEYS)
    sql = "SELECT name, position FROM cursors WHERE name IN (?, ?, ?)"
    positions = {str(name): str(text) for name, text in read(sql, names)}
    beginning = str(Position())
    rolled = positions.get(CURSOR_NAME, beginning)
    sql = "SELECT key, value FROM meta WHERE key IN (?, ?)"
    since = {str(key): str(value) for key, value in read(sql, tuple(SINCE_KEYS.values()))}
    complete = [
        since.get(key, "") if positions.get(name, beginning) == rolled else None for name, key in SINCE_KEYS.items()
    ]
    return SumsState(Position.parse(rolled), *complete)


def has_attribute(read: Read, state: SumsState, attribute: str, which: UsageFilter) -> bool:
    """Return True if the sums by an attribute have all records of a time that the cursors have passed."""
    if not state.has_attribute(attribute, which.since):
        return False
    if attribute != ANNOTATIONS:
        return True
    first = "" if which.since is None else f"{which.since[:10]}T00:00:00.000Z"
    sql = "SELECT 1 FROM attribute_sums WHERE name = ? AND value = ? AND start >= ? AND start < ? LIMIT 1"
    return not any(read(sql, (ANNOTATIONS, LONG_ANNOTATIONS, first, which.until or "~")))
