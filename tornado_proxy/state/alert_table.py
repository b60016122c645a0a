"""The table of alerts: a row for each message to a webhook, which is kept until its period is over.

    add ──> waiting ── claim ──> leased to a process for a minute ── finish ──> done: delivered or given up
                ^                     │                                          (the row says that it was sent)
                └──── postpone ───────┴── the process died: the lease ends

Each function is part of a transaction of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

#: Messages that wait for one webhook; further ones are dropped.
MAX_WAITING = 1000

#: How long a process has a message that it sends.
LEASE = timedelta(minutes=1)

#: Messages that one claim takes.
_MAX_CLAIMED = 20

#: How long a message is kept whose webhook is not configured any more.
_KEPT_WITHOUT_WEBHOOK = timedelta(days=7)

_COUNT_WAITING = "SELECT count(*) FROM alert_messages WHERE webhook = ? AND due_at IS NOT NULL"
_INSERT = (
    "INSERT INTO alert_messages (webhook, alert_key, id, body, created_at, forget_at, attempts, due_at) "
    "VALUES (?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT DO NOTHING RETURNING id"
)
_SELECT_DUE = "SELECT webhook, alert_key, id, body, attempts, created_at FROM alert_messages WHERE due_at <= ?"
_SET_DUE = "UPDATE alert_messages SET due_at = ?, attempts = ? WHERE webhook = ? AND alert_key = ?"
_FORGET = (
    "DELETE FROM alert_messages WHERE (due_at IS NULL AND forget_at < ?) OR (due_at IS NOT NULL AND created_at < ?)"
)
_ANY_DUE = "SELECT 1 FROM alert_messages WHERE due_at <= ? LIMIT 1"


def _create_messages(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS alert_messages (
    webhook {sql.text} NOT NULL,
    alert_key {sql.text} NOT NULL,
    id {sql.text} NOT NULL,
    body {sql.text} NOT NULL,
    created_at {sql.text} NOT NULL,
    forget_at {sql.text},
    attempts {sql.number} NOT NULL,
    due_at {sql.text},
    PRIMARY KEY (webhook, alert_key)
) {sql.keyed_table_end};
CREATE INDEX IF NOT EXISTS alert_messages_due ON alert_messages (due_at) WHERE due_at IS NOT NULL;
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"alert_messages": _create_messages}


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A message to a webhook.

    Attributes:
        id: Its id, the same in each attempt.
        attempts: How often it was sent before.
    """

    webhook: str
    key: str
    id: str
    body: str
    attempts: int
    created_at: datetime


def add(db: Database, message: AlertMessage, forget_at: datetime | None) -> bool:
    """Add a message; return False if its webhook has as many waiting messages as it may.

    No effect if the webhook has, or had, a message with the same key.
    """
    ((waiting,),) = db.fetch_rows(_COUNT_WAITING, (message.webhook,))
    if int(str(waiting)) >= MAX_WAITING:
        return False
    created_at = format_time(message.created_at)
    forget = None if forget_at is None else format_time(forget_at)
    db.fetch_rows(_INSERT, (message.webhook, message.key, message.id, message.body, created_at, forget, created_at))
    return True


def has_due(db: Database, now: datetime) -> bool:
    """Return True if a message is due."""
    return bool(db.fetch_rows(_ANY_DUE, (format_time(now),)))


def claim(db: Database, webhooks: Iterable[str], row_lock: str, now: datetime) -> list[AlertMessage]:
    """Return messages to these webhooks that are due, and lease them to this process."""
    known = frozenset(webhooks)
    rows = db.fetch_rows(f"{_SELECT_DUE} ORDER BY due_at {row_lock}", (format_time(now),))
    claimed = [_make_message(row) for row in rows if row[0] in known][:_MAX_CLAIMED]
    for message in claimed:
        postpone(db, message, now + LEASE)
    return claimed


def postpone(db: Database, message: AlertMessage, due_at: datetime | None) -> None:
    """Count an attempt; the next one is due at `due_at`.  None if there is none: the message is done."""
    due = None if due_at is None else format_time(due_at)
    db.run(_SET_DUE, (due, message.attempts + 1, message.webhook, message.key))


def forget_old(db: Database, now: datetime) -> None:
    """Delete the messages whose period is over, and those that wait for a webhook that is not configured any more."""
    db.run(_FORGET, (format_time(now), format_time(now - _KEPT_WITHOUT_WEBHOOK)))


def _make_message(row: Sequence[object]) -> AlertMessage:
    webhook, key, message_id, body, attempts, created_at = row
    return AlertMessage(
        str(webhook), str(key), str(message_id), str(body), int(str(attempts)), datetime.fromisoformat(str(created_at))
    )
