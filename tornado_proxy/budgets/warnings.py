"""Claims warnings of budgets: one for each counter, limit and threshold, in whichever process reaches it first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counters import CounterKey, make_state
from tornado_proxy.domain.budget import THRESHOLDS_PERCENT, BudgetLimits, BudgetWarning, decode_kind
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
_DELETE_ENDED = "DELETE FROM budget_warnings WHERE period_end < ?"


def create_warnings(sql: Dialect) -> str:
    """Return the SQL that makes the table, if it does not exist."""
    return f"""
CREATE TABLE IF NOT EXISTS budget_warnings (
    kind {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    period_begin {sql.text} NOT NULL,
    usd {sql.text} NOT NULL,
    threshold {sql.number} NOT NULL,
    period_end {sql.text},
    PRIMARY KEY (kind, project_id, subject, period_begin, usd, threshold)
) {sql.keyed_table_end};
"""


def claim(
    db: Database, limits: BudgetLimits, settled: Mapping[CounterKey, Decimal], now: datetime
) -> list[BudgetWarning]:
    """Return the warnings of counters that no process has claimed, at most one for each counter: the highest.

    Call it in the transaction that has changed the counters: only then is each warning claimed once.
    """
    warnings = []
    for key, amount in settled.items():
        is_current = key.period_end is None or key.period_end > format_time(now)
        limit = limits.find_limit(key.project_id, decode_kind(key.kind), key.subject, now) if is_current else None
        if not limit:
            continue  # a budget of 0 admits nothing, so it has nothing to warn of
        reached = next((percent for percent in THRESHOLDS_PERCENT if amount * 100 >= limit * percent), None)
        if reached is not None and _claim(db, key, limit, reached):
            warnings.append(BudgetWarning(make_state(key, key.period_end, amount, Decimal(0)), limit, reached))
    return warnings


def forget_ended(db: Database, before: str) -> None:
    """Delete the claims of periods that ended before a time in the text form of the ledger."""
    db.run(_DELETE_ENDED, (before,))


def _claim(db: Database, key: CounterKey, limit: Decimal, threshold: int) -> bool:
    """Claim a threshold; return False if it, or a higher one, is claimed."""
    # As numbers, 800 and 800.0 are one limit.
    values = (*key.values, f"{limit.normalize():f}", threshold)
    if db.fetch_rows(_SELECT, values):
        return False
    return bool(db.fetch_rows(_INSERT, (*values, key.period_end)))
