"""Warnings of budgets as values: a counter has reached a part of its limit."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.domain.budgets.counter import CounterState

#: Percents of a limit that are warned of, highest first.
THRESHOLDS_PERCENT = (100, 80, 50)


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """A counter has reached `threshold` percent of its limit of `limit` USD."""

    counter: CounterState
    limit: Decimal
    threshold: int
