"""Sends alerts to the webhooks of the configuration, from one event loop.

    tell(alert) ──> queue ──> the database: once for each webhook and key, in all processes
                                   │ due: at once, then after 5 s, 30 s ... 6 h, for a day
                                   v
                   any process leases it and sends it ── 2xx ──> done
                                                      ── else ─> due again, or given up

The queue and the messages of a webhook are bounded; what does not fit is dropped, logged and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from tornado_proxy.alerts.delivery import DeliveryError, deliver
from tornado_proxy.alerts.messages import make_message, make_unsettled_alert
from tornado_proxy.config.sections.alerts import AlertSettings, Webhook
from tornado_proxy.domain.alert import Alert, AlertType
from tornado_proxy.domain.errors import BadRequest, LedgerUnavailable, Overloaded, RateLimited
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.observability import metrics
from tornado_proxy.state import alert_table
from tornado_proxy.state.alert_table import AlertMessage
from tornado_proxy.state.store import StateStore

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Alerts that wait for the database.
MAX_QUEUED = 1000

#: After each failed attempt, the time to the next one.  Standard Webhooks recommends attempts for a day or more.
_RETRIES = tuple(
    timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 6 * 3600, 6 * 3600)
)

#: Seconds between two looks for messages that are due.
_POLL_S = 1.0

_MINUTE_S = 60.0

#: How long after the begin of a request it is found out that its cost is not known: a process dies in the next hour, or
#: the results of a batch stay incomplete.  Less than alerts are kept, so that each is sent once.
_LATE = timedelta(days=2)

#: Returns the usage that a query selects (Ledger.usage).
FindUsage = Callable[[UsageQuery], Awaitable[UsageResult]]


class StateReader(Protocol):
    """The state's thread (state/watcher.py)."""

    async def read(self, query: Callable[[StateStore], _Result]) -> _Result:
        """Run `query` in the thread; raise LedgerUnavailable if the database fails."""


class AlertSender:
    """The alerts of one process."""

    def __init__(self, state: StateReader, find_settings: Callable[[], AlertSettings], find_usage: FindUsage) -> None:
        """Keep the state, and the functions that return the settings in force, and usage."""
        self._state = state
        self._find_settings = find_settings
        self._find_usage = find_usage
        #: The starts of the hours whose alert this process has told.
        self._told_hours: frozenset[datetime] = frozenset()
        #: Alerts, and the function to call when their messages are stored.
        self._queue: deque[tuple[Alert, Callable[[], None]]] = deque()
        self._wake = asyncio.Event()
        self._minute_at = 0.0

    def tell(self, alert: Alert, on_stored: Callable[[], None] = lambda: None) -> None:
        """Send an alert to the webhooks that want its type, once in its period.  Never blocks or raises.

        `on_stored` is called when the alert survives the death of the process, is dropped, or is sent to none.
        """
        receivers = self._find_settings().list_receivers(alert.type)
        if receivers and len(self._queue) < MAX_QUEUED:
            self._queue.append((alert, on_stored))
            self._wake.set()
            return
        for webhook in receivers:
            _drop(alert, webhook.name)
        on_stored()

    async def run(self) -> None:
        """Store and send alerts, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_S)
            self._wake.clear()
            # Without the database nothing is lost: the queue and the messages wait.
            with contextlib.suppress(LedgerUnavailable):
                await self._run_once()

    async def flush(self) -> None:
        """Store the alerts that wait for it: this process ends, and another one or the next start sends them."""
        with contextlib.suppress(LedgerUnavailable):
            await self._store_queue(self._find_settings())

    async def _run_once(self) -> None:
        settings = self._find_settings()
        if not settings.webhooks:
            while self._queue:
                self._queue.popleft()[1]()
            return
        if asyncio.get_running_loop().time() >= self._minute_at:
            self._minute_at = asyncio.get_running_loop().time() + _MINUTE_S
            await self._run_minutely(settings)
        await self._store_queue(settings)
        webhooks = {webhook.name: webhook for webhook in settings.webhooks}
        due = await self._state.read(lambda store: _claim(store, tuple(webhooks)))
        await asyncio.gather(*(self._send(webhooks[message.webhook], message) for message in due))

    async def _run_minutely(self, settings: AlertSettings) -> None:
        """Forget alerts of periods that are over, and look for many requests whose cost is not known."""
        now = datetime.now(UTC)
        await self._state.read(lambda store: _forget(store, now))
        if settings.list_receivers(AlertType.UNSETTLED):
            await self._tell_of_unsettled(settings.unsettled_per_hour, now)

    async def _tell_of_unsettled(self, limit: int, now: datetime) -> None:
        """Tell of the hours in which many requests began whose cost is not known."""
        since = now.replace(minute=0, second=0, microsecond=0) - _LATE
        which = UsageFilter(since=format_time(since), basis=Basis.UNSETTLED.value)
        # The ledger is busy, or has too much of that time for one query: the next minute asks again.
        with contextlib.suppress(BadRequest, Overloaded, RateLimited):
            found = await self._find_usage(UsageQuery(which, Interval.HOUR, group_rows=True))
            hours = {datetime.fromisoformat(str(row.start)): row.requests for row in list_group_rows(found)}
            many = {hour: number for hour, number in hours.items() if number >= limit}
            for hour in sorted(many.keys() - self._told_hours):
                self.tell(make_unsettled_alert(many[hour], limit, hour, now))
            self._told_hours = frozenset(many)

    async def _store_queue(self, settings: AlertSettings) -> None:
        while self._queue:
            alert, on_stored = self._queue[0]
            messages = [make_message(alert, webhook.name) for webhook in settings.list_receivers(alert.type)]
            dropped = await self._state.read(partial(_add, messages=messages, forget_at=alert.forget_at))
            self._queue.popleft()
            for webhook in dropped:
                _drop(alert, webhook)
            on_stored()

    async def _send(self, webhook: Webhook, message: AlertMessage) -> None:
        try:
            status = await deliver(webhook, message.id, message.body)
        except DeliveryError as error:
            await self._postpone(message, error)
            return
        metrics.ALERTS.labels(webhook.name, "sent").inc()
        _log.info("alert sent", extra={"webhook": webhook.name, "message_id": message.id, "status": status})
        await self._state.read(lambda store: _set_due(store, message, None))

    async def _postpone(self, message: AlertMessage, error: DeliveryError) -> None:
        wait = None if error.final or message.attempts >= len(_RETRIES) else _RETRIES[message.attempts]
        fields = {"webhook": message.webhook, "message_id": message.id, "reason": str(error)}
        if wait is None:
            metrics.ALERTS.labels(message.webhook, "given_up").inc()
            _log.error("alert given up", extra={**fields, "attempts": message.attempts + 1, "body": message.body})
        else:
            metrics.ALERTS.labels(message.webhook, "failed").inc()
            _log.warning("alert not accepted; it is sent again", extra={**fields, "seconds": wait.total_seconds()})
        due_at = None if wait is None else datetime.now(UTC) + wait
        await self._state.read(lambda store: _set_due(store, message, due_at))


def _drop(alert: Alert, webhook: str) -> None:
    metrics.ALERTS.labels(webhook, "dropped").inc()
    _log.error("alert dropped; too many wait", extra={"webhook": webhook, "type": alert.type, "data": dict(alert.data)})


# In the thread of the state.


def _add(store: StateStore, *, messages: list[AlertMessage], forget_at: datetime | None) -> list[str]:
    """Store messages; return the webhooks for which too many wait."""
    with store.writing() as db:
        return [message.webhook for message in messages if not alert_table.add(db, message, forget_at)]


def _claim(store: StateStore, webhooks: tuple[str, ...]) -> list[AlertMessage]:
    now = datetime.now(UTC)
    with store.reading() as db:
        if not alert_table.has_due(db, now):
            return []
    with store.writing() as db:
        return alert_table.claim(db, webhooks, store.row_lock, now)


def _set_due(store: StateStore, message: AlertMessage, due_at: datetime | None) -> None:
    with store.writing() as db:
        alert_table.postpone(db, message, due_at)


def _forget(store: StateStore, now: datetime) -> None:
    with store.writing() as db:
        alert_table.forget_old(db, now)
