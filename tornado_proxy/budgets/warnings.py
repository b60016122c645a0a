"""Claims warnings of budgets: one for each counter, limit and threshold, in whichever process reaches it first.

budget_warnings   the claims
budget_alerts     the claimed warnings whose alert is not among the messages of the ledger's database yet

A process that dies in between leaves its rows of budget_alerts to the others, or to the next start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets import token_budgets
from tornado_proxy.budgets.counting.counters import FIRST_KEY, CounterKey, key_of_state, make_state, read_spent
from tornado_proxy.budgets.counting.cursor import lock_cursor
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, decode_kind
from tornado_proxy.domain.budgets.warning import THRESHOLDS_PERCENT, BudgetWarning
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_INSERT = (
    "INSERT INTO budget_warnings (kind, project_id, subject, period_begin, usd, threshold, period_end) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING threshold"
)
_SELECT = (
    "SELECT 1 FROM budget_warnings WHERE kind = ? AND project_id = ? AND subject = ? AND period_begin = ? AND usd = ? "
    "AND threshold >= ? LIMIT 1"
)
_INSERT_ALERT = (
    "INSERT INTO budget_alerts (kind, project_id, subject, period_begin, usd, threshold, period_end, settled, "
    "claimed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SELECT_UNTOLD = (
    "SELECT kind, project_id, subject, period_begin, period_end, settled, usd, threshold FROM budget_alerts "
    "WHERE claimed_at < ?"
)
_DELETE_ALERT = (
    "DELETE FROM budget_alerts WHERE kind = ? AND project_id = ? AND subject = ? AND period_begin = ? AND usd = ? "
    "AND threshold = ?"
)
_DELETE_ENDED = (
    "DELETE FROM budget_warnings WHERE period_end < ?",
    "DELETE FROM budget_alerts WHERE period_end < ?",
)


def create_warnings(sql: Dialect) -> str:
    """Return the SQL that makes the tables that do not exist."""
    columns = (
        f"kind {sql.text} NOT NULL, project_id {sql.text} NOT NULL, subject {sql.text} NOT NULL, "
        f"period_begin {sql.text} NOT NULL, usd {sql.text} NOT NULL, threshold {sql.number} NOT NULL, "
        f"period_end {sql.text}"
    )
    key = "PRIMARY KEY (kind, project_id, subject, period_begin, usd, threshold)"
    return f"""
CREATE TABLE IF NOT EXISTS budget_warnings (
    {columns},
    {key}
) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS budget_alerts (
    {columns},
    settled {sql.text} NOT NULL,
    claimed_at {sql.text} NOT NULL,
    {key}
) {sql.keyed_table_end};
"""


def claim(
    db: Database, limits: BudgetLimits, settled: Mapping[CounterKey, Decimal], now: datetime
) -> list[BudgetWarning]:
    """Return the warnings of counters that no process has claimed, at most one for each counter: the highest.

    Call it in a transaction that alone changes counters: only then is each warning claimed once.
    """
    warnings = []
    limits = limits.state(token_budgets.find(db, settled))
    for key, amount in settled.items():
        is_current = key.period_end is None or key.period_end > format_time(now)
        limit = limits.find_limit(key.project_id, decode_kind(key.kind), key.subject, now) if is_current else None
        if not limit:
            continue  # a budget of 0 admits nothing, so it has nothing to warn of
        reached = next((percent for percent in THRESHOLDS_PERCENT if amount * 100 >= limit * percent), None)
        if reached is not None and _claim(db, key, limit, reached):
            values = (*_make_values(key, limit, reached), key.period_end, f"{amount:f}", format_time(now))
            db.run(_INSERT_ALERT, values)
            warnings.append(BudgetWarning(make_state(key, key.period_end, amount, Decimal(0)), limit, reached))
    return warnings


def claim_all(db: Database, row_lock: str, limits: BudgetLimits, now: datetime) -> Iterator[list[BudgetWarning]]:
    """Claim the warnings of all counters of current periods, some in each transaction; yield those of each.

    Args:
        db: The budgets' database.
        row_lock: The SQL that locks a row, which is the cursor, as in each transaction that changes counters.
        limits: The limits in force.
        now: The time whose periods are the current ones.
    """
    lowest = {kind: limit for kind in limits.list_kinds() if (limit := limits.find_lowest(kind)) is not None}
    scans = [(kind, limit * THRESHOLDS_PERCENT[-1] / 100) for kind, limit in lowest.items()]
    for kind, least in [(TOKEN_TOTAL, None), *scans]:
        after: CounterKey | None = FIRST_KEY
        while after is not None:
            # Not in the transaction: there can be a million counters that have spent less.
            spent, after = read_spent(db, kind, least, now, after)
            if spent:
                with db.transaction():
                    lock_cursor(db, row_lock)
                    claimed = claim(db, limits, spent, now)
                yield claimed


def list_untold(db: Database, before: datetime) -> list[BudgetWarning]:
    """Return the warnings that were claimed before a time and whose alert is not stored."""
    return [
        BudgetWarning(
            make_state(CounterKey(*map(str, row[:4])), row[4], row[5], "0"), Decimal(str(row[6])), int(str(row[7]))
        )
        for row in db.fetch_rows(_SELECT_UNTOLD, (format_time(before),))
    ]


def forget_alert(db: Database, warning: BudgetWarning) -> None:
    """Delete a warning from those whose alert is not stored."""
    db.run(_DELETE_ALERT, _make_values(key_of_state(warning.counter), warning.limit, warning.threshold))


def forget_ended(db: Database, before: str) -> None:
    """Delete the claims of periods that ended before a time in the text form of the ledger."""
    for sql in _DELETE_ENDED:
        db.run(sql, (before,))


def _claim(db: Database, key: CounterKey, limit: Decimal, threshold: int) -> bool:
    """Claim a threshold; return False if it, or a higher one, is claimed."""
    values = _make_values(key, limit, threshold)
    if db.fetch_rows(_SELECT, values):
        return False
    return bool(db.fetch_rows(_INSERT, (*values, key.period_end)))


def _make_values(key: CounterKey, limit: Decimal, threshold: int) -> tuple[object, ...]:
    """Return the key of a row; as numbers, 800 and 800.0 are one limit."""
    return (*key.values, f"{limit.normalize():f}", threshold)
