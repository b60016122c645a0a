"""Finds the limit that is in force among configured budgets, their changes and the budgets that tokens state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.budgets.budget import Budget, BudgetChange, TokenBudget
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, CounterKind
from tornado_proxy.domain.budgets.spender import Spender


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The limits of all projects' budgets: those that are configured or stated by tokens, and their changes.

    Attributes:
        budgets: The budgets of each project in the configuration, by project id.
        changes: The changes of each project's budgets, by project id.
        stated: The budgets that tokens state, by project id and token id.
    """

    budgets: Mapping[str, Sequence[Budget]] = field(default_factory=dict)
    changes: Mapping[str, Sequence[BudgetChange]] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, TokenBudget]] = field(default_factory=dict)

    def list_kinds(self) -> list[CounterKind]:
        """Return the kinds of the configured budgets."""
        return list(dict.fromkeys(budget.kind for budgets in self.budgets.values() for budget in budgets))

    def find_lowest(self, kind: CounterKind) -> Decimal | None:
        """Return the lowest limit of a kind above 0, configured or changed, of all projects; None if it has none."""
        limits = [budget.limit for budgets in self.budgets.values() for budget in budgets if budget.kind == kind]
        changed = [change.limit for changes in self.changes.values() for change in changes if change.kind == kind]
        return min((limit for limit in (*limits, *changed) if limit), default=None)

    def state(self, budgets: Iterable[TokenBudget]) -> BudgetLimits:
        """Return these limits, with the budgets that tokens state."""
        stated: dict[str, dict[str, TokenBudget]] = {}
        for budget in budgets:
            stated.setdefault(budget.project_id, {})[budget.token_id] = budget
        return replace(self, stated=stated)

    def find_stated(self, project_id: str, kind: CounterKind, subject: str | None) -> TokenBudget | None:
        """Return the budget that a token states for a counter."""
        return self.stated.get(project_id, {}).get(subject or "") if kind == TOKEN_TOTAL else None

    def find_change(self, project_id: str, kind: CounterKind, subject: str | None, at: datetime) -> BudgetChange | None:
        """Return the change that is in force for a subject: its own, else that of all subjects."""
        in_force = self._list_in_force(project_id, kind, at)
        stated = self.find_stated(project_id, kind, subject)
        of_all = in_force.get(None) if stated is None or not stated.is_narrowed else None
        return in_force.get(subject) or of_all

    def find_configured(self, project_id: str, kind: CounterKind, subject: str) -> Decimal | None:
        """Return the lowest limit of a counter that is configured or stated by its token; None if it has none."""
        stated = self.find_stated(project_id, kind, subject)
        return _find_lowest(self._list_configured(project_id, kind, stated), stated)

    def find_limit(self, project_id: str, kind: CounterKind, subject: str, at: datetime) -> Decimal | None:
        """Return the lowest limit of a counter in USD that is in force; None if it has none."""
        stated = self.find_stated(project_id, kind, subject)
        configured = self._list_configured(project_id, kind, stated)
        changes = self._list_in_force(project_id, kind, at) if configured or stated else {}
        if subject in changes:
            return changes[subject].limit
        if None in changes and configured:
            # It leaves the limit that a token states.
            limit = changes[None].limit
            configured = [] if limit is None else [limit]
        return _find_lowest(configured, stated)

    def _list_configured(self, project_id: str, kind: CounterKind, stated: TokenBudget | None) -> list[Decimal]:
        if stated is not None and stated.is_narrowed:
            return []
        return [budget.limit for budget in self.budgets.get(project_id, ()) if budget.kind == kind]

    def apply_changes(self, budgets: tuple[Budget, ...], spender: Spender, at: datetime) -> tuple[Budget, ...]:
        """Return the budgets of a spender's requests, with the limits in force and without those that are lifted."""
        if not self.changes.get(spender.project_id):
            return budgets
        changed = []
        for budget in budgets:
            change = self._find_applied(budget, spender, at)
            if change is None:
                changed.append(budget)
            elif change.limit is not None:
                then = None if change.until is None else self._find_limit_at(change.until, budget, spender)
                if then is None or then <= change.limit:
                    changed.append(replace(budget, limit=change.limit))
                else:
                    changed.append(replace(budget, limit=change.limit, lowered_until=change.until, limit_then=then))
        return tuple(changed)

    def _find_limit_at(self, at: datetime, budget: Budget, spender: Spender) -> Decimal:
        """Return the limit of a configured budget that is in force at `at`, infinite if it is lifted."""
        change = self._find_applied(budget, spender, at)
        if change is None:
            return budget.limit
        return Decimal("Infinity") if change.limit is None else change.limit

    def _find_applied(self, budget: Budget, spender: Spender, at: datetime) -> BudgetChange | None:
        in_force = self._list_in_force(spender.project_id, budget.kind, at)
        if budget.subject is None:
            return in_force.get(spender.subject(budget.kind)) or in_force.get(None)
        return in_force.get(budget.subject)

    def _list_in_force(self, project_id: str, kind: CounterKind, at: datetime) -> dict[str | None, BudgetChange]:
        """Return the changes of a budget that are in force, by subject."""
        return {
            change.subject: change
            for change in self.changes.get(project_id, ())
            if change.kind == kind and (change.until is None or at < change.until)
        }


def _find_lowest(limits: Sequence[Decimal], stated: TokenBudget | None) -> Decimal | None:
    return min([*limits, *([] if stated is None else [stated.limit])], default=None)
