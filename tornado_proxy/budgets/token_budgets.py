"""The budgets that participant tokens state, so that processes and commands which have not seen a token know them.

token_budgets   one row for each token with a budget of its own that has sent a request, until it has expired
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counting.counters import CounterKey
from tornado_proxy.domain.budgets.budget import TokenBudget
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, encode_kind
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

_COLUMNS = "token_ids, project_id, participant, usd, expires_at"
_SELECT = f"SELECT {_COLUMNS} FROM token_budgets"  # noqa: S608  # names of ours
# A session key states the budget of its token, and expires before it.
_UPSERT = (
    f"INSERT INTO token_budgets (token_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token_id) DO UPDATE "  # noqa: S608
    "SET expires_at = excluded.expires_at WHERE excluded.expires_at > token_budgets.expires_at"
)
_DELETE = "DELETE FROM token_budgets WHERE expires_at < ?"

#: The expiry of a token that never expires: after all times.
_NEVER = "9999"

_KIND = encode_kind(TOKEN_TOTAL)

#: Token ids that one query names.
_MAX_IDS = 500


def create_token_budgets(sql: Dialect) -> str:
    """Return the SQL that makes the table if it does not exist."""
    return f"""
CREATE TABLE IF NOT EXISTS token_budgets (
    token_id {sql.text} PRIMARY KEY,
    token_ids {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    participant {sql.text},
    usd {sql.text} NOT NULL,
    expires_at {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


def store(db: Database, budgets: Iterable[TokenBudget]) -> None:
    """Store the budgets of tokens; those that are stored already stay."""
    with db.transaction():
        for budget in sorted(budgets, key=lambda budget: budget.token_id):
            expires_at = _NEVER if budget.expires_at is None else format_time(budget.expires_at)
            values = (" ".join(budget.token_ids), budget.project_id, budget.participant, f"{budget.limit:f}")
            db.run(_UPSERT, (budget.token_id, *values, expires_at))


def list_valid(db: Database, now: datetime) -> list[TokenBudget]:
    """Return the budgets of the tokens that have not expired, by project and token."""
    sql = f"{_SELECT} WHERE expires_at > ? ORDER BY project_id, token_id"
    return [_make(row) for row in db.fetch_rows(sql, (format_time(now),))]


def find(db: Database, keys: Iterable[CounterKey]) -> list[TokenBudget]:
    """Return the budgets that tokens state for counters."""
    ids = sorted({key.subject for key in keys if key.kind == _KIND})
    found = []
    for start in range(0, len(ids), _MAX_IDS):
        some = ids[start : start + _MAX_IDS]
        sql = f"{_SELECT} WHERE token_id IN ({', '.join('?' * len(some))})"
        found += [_make(row) for row in db.fetch_rows(sql, some)]
    return found


def forget_expired(db: Database, before: str) -> None:
    """Delete the budgets of tokens that expired before a time in the text form of the ledger."""
    db.run(_DELETE, (before,))


def _make(row: Sequence[object]) -> TokenBudget:
    token_ids, project_id, participant, usd, expires_at = row
    return TokenBudget(
        str(project_id),
        tuple(str(token_ids).split()),
        None if participant is None else str(participant),
        Decimal(str(usd)),
        None if expires_at == _NEVER else datetime.fromisoformat(str(expires_at)),
    )
