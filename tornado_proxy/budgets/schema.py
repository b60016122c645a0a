"""The tables of budgets: in a file beside an SQLite ledger, in the ledger's own database on PostgreSQL.

budget_kinds          what is counted; a kind counts for every project
budget_counters       settled and reserved USD of each subject in each period
budget_warnings       the warnings that were made (budgets/warnings.py)
budget_alerts         those whose alert is not stored yet
budget_reservations   requests under way that have reserved here, and those whose cost is not final
budget_leases         slices of counters that processes have leased (leasing.py)
leased_requests       requests under way that have reserved from slices
rate_buckets          how much of each limit is used (rates.py)
rate_claims           what requests under way have taken of limits, one by one
rate_leases           what processes have taken of limits in advance (rate_leasing.py)
brake_windows         what was spent in the last minute (brakes.py)
brake_trips           whose stop is to be made
token_budgets         the budgets that tokens state (token_budgets.py)
budget_meta           how far the ledger is counted (counting/cursor.py), kinds that are incomplete (counted_kinds.py)

Amounts are decimal strings, times RFC 3339 UTC.
"""

from __future__ import annotations

from tornado_proxy.budgets.brakes import create_brake_tables
from tornado_proxy.budgets.leases.leasing import create_lease_tables
from tornado_proxy.budgets.limits.rates import create_rate_tables
from tornado_proxy.budgets.token_budgets import create_token_budgets
from tornado_proxy.budgets.warnings import create_warnings
from tornado_proxy.ledger.dialect import Dialect


def create_tables(sql: Dialect) -> str:
    """Return the SQL that makes the tables that do not exist."""
    return f"""
{create_lease_tables(sql)}
CREATE TABLE IF NOT EXISTS budget_meta (key {sql.text} PRIMARY KEY, value {sql.text} NOT NULL) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS budget_kinds (kind {sql.text} PRIMARY KEY) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS budget_counters (
    kind {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    period_begin {sql.text} NOT NULL,
    period_end {sql.text},
    settled {sql.text} NOT NULL,
    reserved {sql.text} NOT NULL,
    PRIMARY KEY (kind, project_id, subject, period_begin)
) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS budget_reservations (
    request_id {sql.text} PRIMARY KEY,
    writer {sql.text} NOT NULL,
    state {sql.text} NOT NULL,
    started_at {sql.text} NOT NULL,
    total {sql.text} NOT NULL,
    subtotal {sql.text} NOT NULL,
    counters {sql.text} NOT NULL,
    counted_total {sql.text} NOT NULL,
    counted_subtotal {sql.text} NOT NULL
) {sql.keyed_table_end};
{create_warnings(sql)}
{create_token_budgets(sql)}
{_create_index(sql, "budget_counters_end", "budget_counters (period_end) WHERE period_end IS NOT NULL")}
{_create_index(sql, "budget_reservations_state", "budget_reservations (state)")}
{create_rate_tables(sql)}
{create_brake_tables(sql)}"""


def _create_index(sql: Dialect, name: str, columns: str) -> str:
    """Return the SQL that makes an index if it does not exist.

    PostgreSQL locks the table before it looks for the index: each start would wait for all that write the table, and
    with two of them could end in a deadlock, which makes a request of another process fail.
    """
    statement = f"CREATE INDEX IF NOT EXISTS {name} ON {columns};"
    if not sql.wait_for_writers:
        return statement
    return f"DO $$ BEGIN IF to_regclass('{name}') IS NULL THEN {statement} END IF; END $$;"
