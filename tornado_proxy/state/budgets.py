"""Changes budgets: sets or lifts a limit, restores that of the configuration.  For commands and the admin port."""

from __future__ import annotations

from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.state import budget_table
from tornado_proxy.state.guarded_changes import Changes


def apply(changes: Changes, change: BudgetChange) -> None:
    """Put another limit in force."""
    action = "budget lifted" if change.limit is None else "budget set"
    with changes.change(change.actor, action, change.project_id) as db:
        budget_table.replace(db, change)


def restore(changes: Changes, change: BudgetChange) -> None:
    """Put the limit of the configuration in force again, in place of a change of the same budget and subject."""
    with changes.change(change.actor, "budget restored", change.project_id) as db:
        budget_table.delete(db, change.project_id, change.kind, change.subject)
