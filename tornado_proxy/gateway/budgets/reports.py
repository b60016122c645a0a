"""Reads the budgets of a ledger with their figures; called in a thread, because there can be many counters."""

from __future__ import annotations

from datetime import UTC, datetime

from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import Scope
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.budgets.reservations import make_spender
from tornado_proxy.reports.budget_uses import BudgetUse, find_uses
from tornado_proxy.reports.budgets import BudgetFigures, BudgetRow, list_rows


def read_rows(store: BudgetStore, limits: BudgetLimits, project_id: str | None) -> list[BudgetRow]:
    """Return the budgets of all projects, or of one."""
    now = datetime.now(UTC)
    counters = store.list_limited_counters(limits, now)
    figures = BudgetFigures(counters, store.sum_reservations(counters), store.list_stated(now))
    return list_rows(limits, figures, now, project_id)


def read_own_rows(store: BudgetStore, limits: BudgetLimits, caller: Caller) -> list[BudgetRow]:
    """Return the budgets that concern a caller alone, without a look at the counters of others."""
    now = datetime.now(UTC)
    counters = store.list_counters_of(make_spender(caller))
    figures = BudgetFigures(counters, store.sum_reservations(counters), store.list_stated(now))
    return [row for row in list_rows(limits, figures, now, caller.project_id) if _is_own(row, caller)]


def read_uses(store: BudgetStore, limits: BudgetLimits) -> list[BudgetUse]:
    """Return how much of the budgets is spent."""
    now = datetime.now(UTC)
    return find_uses(limits.state(store.list_stated(now)), store.list_limited_counters(limits, now), now)


def _is_own(row: BudgetRow, caller: Caller) -> bool:
    if row.stated is not None:
        return row.state.subject in caller.token_ids
    kind = row.state.kind
    is_of_many = kind.scope in (Scope.PROJECT, Scope.LABEL)
    return not is_of_many and make_spender(caller).subject(kind) == row.state.subject
