"""Collects ended requests until they are sent to the dashboard.  Bounded, whether or not the dashboard reads.

The sums are kept here, so that a dashboard that was suspended shows the right ones; of finished requests and errors it
gets the last ones only, which is all that it keeps itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

from tornado_proxy.domain.cost import ZERO, LineItem
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.record import Outcome, RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.local.dashboard.messages import (
    MAX_ERRORS,
    MAX_MODELS,
    MAX_NAME_CHARACTERS,
    MAX_RECENT,
    MAX_TEXT_CHARACTERS,
    MINUTES,
    OTHER_MODELS,
    Finished,
    Item,
    ModelSums,
    Refused,
    Running,
    Sums,
    Update,
)
from tornado_proxy.local.request_lines import count_tokens
from tornado_proxy.observability.access_log import RequestLine

#: Line items and notes of one request: a batch can have thousands.
_MAX_ITEMS, _MAX_NOTES = 100, 20

#: Finished requests in one update, so that it is encoded in a millisecond; the others follow in the next one.
_MAX_FINISHED_PER_UPDATE = 100


def _now() -> datetime:
    return datetime.now(UTC)


class Feed:
    """The sums, and the requests and errors that the dashboard has not got yet."""

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self._now = now
        self._sums = Sums()
        self._refused_count = self._error_count = 0
        self._models: dict[tuple[str, str], Sums] = {}
        self._changed_models: set[tuple[str, str]] = set()
        self._finished: deque[Finished] = deque(maxlen=MAX_RECENT)
        self._refused: deque[Refused] = deque(maxlen=MAX_ERRORS)
        #: Minute since 1970 -> spend.
        self._spend: dict[int, Decimal] = {}
        self._sent_minute = -1
        self._changed = True

    def on_record(self, record: RequestRecord, message: str = "") -> None:
        """Note a request that has ended; `message` is the error message of its response."""
        # The server chooses request ids, so they need not differ.
        finished = _describe(record, message, number=self._sums.requests + 1)
        self._changed = True
        self._finished.append(finished)
        self._error_count += finished.is_error
        self._sums = _add(self._sums, finished)
        key = (finished.provider, finished.model)
        if key not in self._models and len(self._models) >= MAX_MODELS:
            key = ("", OTHER_MODELS)
        self._models[key] = _add(self._models.get(key, Sums()), finished)
        self._changed_models.add(key)
        minute = _minute(record.ended_at)
        self._spend[minute] = self._spend.get(minute, ZERO) + record.cost.total
        if len(self._spend) > MINUTES:
            del self._spend[min(self._spend)]

    def on_refusal(self, error: RequestError, line: RequestLine) -> None:
        """Note a request that the local proxy has refused itself."""
        self._refused_count += 1
        self._note(error.status, line.method, line.path, error.code, error.message)

    def on_warning(self, logger: str, message: str) -> None:
        """Note a warning of the proxy's own log."""
        self._note(0, "", "", logger, message)

    def take_update(self, running: tuple[Running, ...], running_count: int) -> Update | None:
        """Return the changes since the last update, None if there are none."""
        minute = _minute(self._now())
        if not (self._changed or running or minute != self._sent_minute):
            return None
        update = Update(
            sums=self._sums,
            refused_count=self._refused_count,
            error_count=self._error_count,
            running_count=running_count,
            minutes=self._list_minutes(minute),
            running=running,
            finished=tuple(self._take_finished()),
            refused=tuple(self._refused),
            models=tuple(ModelSums(*key, self._models[key]) for key in self._changed_models),
        )
        self._refused.clear()
        self._changed_models.clear()
        # One more update after the last request has ended takes it from the screen.
        self._changed, self._sent_minute = bool(running or self._finished), minute
        return update

    def _take_finished(self) -> Iterator[Finished]:
        for _ in range(min(len(self._finished), _MAX_FINISHED_PER_UPDATE)):
            yield self._finished.popleft()

    def _note(self, status: int, method: str, path: str, code: str, message: str) -> None:
        self._changed = True
        method, path = method[:MAX_NAME_CHARACTERS], path[:MAX_TEXT_CHARACTERS]
        self._refused.append(Refused(self._now(), status, method, path, code, message[:MAX_TEXT_CHARACTERS]))

    def _list_minutes(self, current: int) -> tuple[Decimal, ...]:
        return tuple(self._spend.get(current - age, ZERO) for age in reversed(range(MINUTES)))


def _minute(at: datetime) -> int:
    return int(at.timestamp()) // 60


def _add(sums: Sums, finished: Finished) -> Sums:
    return Sums(
        sums.requests + 1,
        sums.tokens + finished.tokens,
        sums.subtotal + finished.subtotal,
        sums.surcharge + finished.surcharge,
        sums.total + finished.total,
        sums.unsettled + (finished.basis in (Basis.UNSETTLED, Basis.PENDING)),
    )


def _describe(record: RequestRecord, message: str, *, number: int) -> Finished:
    intent, cost = record.intent, record.cost
    is_error = record.outcome is not Outcome.CLIENT_CLOSED and (
        record.outcome is not Outcome.COMPLETED or (record.status or 0) >= 400
    )
    return Finished(
        request_id=intent.request_id,
        ended_at=record.ended_at.astimezone(UTC),
        status=record.status,
        outcome=str(record.outcome),
        basis=str(record.basis),
        provider=intent.provider,
        method="WS" if intent.session else intent.method,
        path=intent.endpoint,
        model=(record.model or intent.model_requested or "")[:MAX_NAME_CHARACTERS],
        tokens=count_tokens(record),
        subtotal=cost.subtotal,
        surcharge=cost.surcharge,
        total=cost.total,
        first_byte_ms=_milliseconds(intent.started_at, record.first_byte_at),
        duration_ms=_milliseconds(intent.started_at, record.ended_at) or 0,
        items=tuple(_describe_item(item) for item in cost.line_items[:_MAX_ITEMS]),
        notes=tuple(note[:MAX_TEXT_CHARACTERS] for note in record.faults[:_MAX_NOTES]),
        message=message[:MAX_TEXT_CHARACTERS],
        session=intent.session or "",
        is_error=is_error,
        number=number,
    )


def _describe_item(item: LineItem) -> Item:
    model = None if item.model is None else item.model[:MAX_NAME_CHARACTERS]
    return Item(item.type, item.quantity, item.unit, item.unit_price, item.amount, model)


def _milliseconds(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else round((end - start).total_seconds() * 1000)
