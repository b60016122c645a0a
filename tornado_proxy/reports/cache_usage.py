"""Shows what prompt caches have saved: input read from them, money against list, writes that nothing has read.  Pure.

    record ──> line items of input ──> CacheSum of its group
           └─> writes of its session ──> read by a later request within their life? ── no ──> unread

A prompt grows at its end, so a cache holds the start of it: a request that reads R tokens and writes W has cached the
tokens from R to R + W.  A later request of the same session, agent and model that reads more than R has read them, and
lets their life begin again (Claude docs and OpenAI guide, "Prompt caching").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from tornado_proxy.domain.cost import LineItem, round_amount
from tornado_proxy.domain.usage import Meter
from tornado_proxy.ledger.reports.records_query import EXACT
from tornado_proxy.ledger.rows import format_decimal, read_line_items
from tornado_proxy.pricing.book.price import UNITS
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.rerate import find_entry

#: Columns of a record that the report needs.
COLUMNS = (
    *("project_id", "participant", "user", "issuer", "session", "provider", "endpoint", "model", "started_at"),
    *("ended_at", "line_items", "agent_session", "agent"),
)

#: The groups of the report.
GROUPS = ("agent_session", "agent", "model")

#: The columns of a row after its groups.
FIGURES = (
    *("requests", "input_tokens", "read_tokens", "read_share", "written_tokens", "unread_tokens", "saved_usd"),
    "unpriced_tokens",
)

#: Only text has writes; audio and images in a cache are not part of the report.
_READ = Meter.CACHED_INPUT
#: The life of a write after its last use (docs/usage.md; OpenAI guide and Claude docs, "Prompt caching").
_LIVES: Mapping[str, timedelta] = {
    Meter.CACHE_WRITE: timedelta(minutes=30),
    Meter.CACHE_WRITE_12H: timedelta(hours=12),
    Meter.CACHE_WRITE_5M: timedelta(minutes=5),
    Meter.CACHE_WRITE_1H: timedelta(hours=1),
}
_INPUT = frozenset({Meter.INPUT, _READ, *_LIVES})

#: Decimals of a share.
_SHARE = Decimal("0.0001")

_ZERO = Decimal(0)


@dataclass(slots=True)
class CacheSum:
    """The sums of one group: tokens, and USD that the cache has saved against the list price of uncached input.

    saved: what reads have saved, less what writes cost more than plain input; without the surcharge.
    unpriced: tokens read or written for which today's price files have no price of plain input.
    """

    requests: int = 0
    read: Decimal = _ZERO
    written: Decimal = _ZERO
    fresh: Decimal = _ZERO
    unread: Decimal = _ZERO
    saved: Decimal = _ZERO
    unpriced: Decimal = _ZERO

    @property
    def input(self) -> Decimal:
        """All input tokens."""
        return self.read + self.written + self.fresh

    @property
    def read_share(self) -> Decimal | None:
        """The share of the input that was read from a cache, from 0 to 1; None without input."""
        return (self.read / self.input).quantize(_SHARE) if self.input else None

    def members(self) -> dict[str, object]:
        """Return the values of FIGURES; decimals are text."""
        share = self.read_share
        figures = (self.input, self.read, share, self.written, self.unread, self.saved, self.unpriced)
        texts = [None if value is None else format_decimal(value) for value in figures]
        return dict(zip(FIGURES, (self.requests, *texts), strict=True))


@dataclass(slots=True)
class _Write:
    """Tokens from `start` on that a request has written; `read` of them were read, and they live until `ends_at`."""

    start: Decimal
    tokens: Decimal
    life: timedelta
    ends_at: datetime
    group: tuple[str | None, ...]
    read: Decimal = _ZERO


@dataclass(slots=True)
class _Report:
    book: PriceBook
    sums: dict[tuple[str | None, ...], CacheSum] = field(default_factory=dict)
    writes: dict[tuple[object, ...], list[_Write]] = field(default_factory=dict)

    def add(self, record: Mapping[str, object]) -> None:
        items = [item for item in read_line_items(_text(record["line_items"])) if item.type in _INPUT]
        for model in dict.fromkeys(item.model for item in items):
            group = (_text(record["agent_session"]), _text(record["agent"]), model)
            of_model = [item for item in items if item.model == model]
            self._add_items(record, of_model, self.sums.setdefault(group, CacheSum()))
            # The amounts of a batch are sums over prompts that do not continue each other.
            if not str(record["endpoint"]).endswith("/batches"):
                self._follow_writes(record, of_model, group)

    def _add_items(self, record: Mapping[str, object], items: Sequence[LineItem], total: CacheSum) -> None:
        total.requests += 1
        at = datetime.fromisoformat(str(record["started_at"]))
        for item in items:
            if item.type == Meter.INPUT:
                total.fresh = EXACT.add(total.fresh, item.quantity)
                continue
            if item.type in _LIVES:
                total.written = EXACT.add(total.written, item.quantity)
            else:
                total.read = EXACT.add(total.read, item.quantity)
            saved = self._find_saving(str(record["provider"]), item, at)
            if saved is None:
                total.unpriced = EXACT.add(total.unpriced, item.quantity)
            else:
                total.saved = EXACT.add(total.saved, saved)

    def _find_saving(self, provider: str, item: LineItem, at: datetime) -> Decimal | None:
        """Return how much more the tokens would have cost as plain input, negative for writes; None if unknown."""
        entry = find_entry(self.book, provider, replace(item, type=Meter.INPUT.value), at).entry
        if entry is None or item.amount is None:
            return None
        return round_amount(item.quantity * entry.unit_price / UNITS[entry.card.unit]) - item.amount

    def _follow_writes(
        self, record: Mapping[str, object], items: Sequence[LineItem], group: tuple[str | None, ...]
    ) -> None:
        names = ("project_id", "participant", "user", "issuer", "session", "provider")
        key = (*(record[name] for name in names), *group)
        read = sum((item.quantity for item in items if item.type == _READ), _ZERO)
        began_at, ended_at = (datetime.fromisoformat(str(record[name])) for name in ("started_at", "ended_at"))
        living = [write for write in self.writes.pop(key, []) if self._keep(write, began_at)]
        for write in living:
            if read > write.start:
                write.read = max(write.read, min(read - write.start, write.tokens))
                write.ends_at = ended_at + write.life
        start = read
        for item in items:
            if item.type in _LIVES:
                life = _LIVES[item.type]
                living.append(_Write(start, item.quantity, life, ended_at + life, group))
                start += item.quantity
        living = [write for write in living if write.read < write.tokens]
        if living:
            self.writes[key] = living

    def _keep(self, write: _Write, now: datetime) -> bool:
        """Return True if a write lives at `now`; else count the tokens of it that nothing has read."""
        if now <= write.ends_at:
            return True
        total = self.sums[write.group]
        total.unread = EXACT.add(total.unread, write.tokens - write.read)
        return False

    def close(self, now: datetime) -> None:
        """Count the writes whose life has ended."""
        for writes in self.writes.values():
            for write in writes:
                self._keep(write, now)


def sum_cache_usage(
    records: Iterable[Mapping[str, object]], book: PriceBook, now: datetime
) -> list[tuple[tuple[str | None, ...], CacheSum]]:
    """Return the sums by GROUPS of records with COLUMNS, oldest first; those with the most input come first.

    Args:
        records: The records in the order of their start.
        book: Today's prices, valid on the day of each request.
        now: Writes that live longer are not counted as unread yet; aware UTC.
    """
    report = _Report(book)
    for record in records:
        report.add(record)
    report.close(now)
    return sorted(report.sums.items(), key=lambda item: (-item[1].input, tuple(part or "" for part in item[0])))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
