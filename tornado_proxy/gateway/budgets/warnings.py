"""Reports warnings of budgets: a log line and a metric.  Each warning reaches one process of a ledger."""

from __future__ import annotations

import logging

from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)


def report_warning(warning: BudgetWarning) -> None:
    """Log and count a warning."""
    metrics.BUDGET_WARNINGS.labels(str(warning.threshold)).inc()
    counter = warning.counter
    end = counter.interval.end
    _log.warning(
        "budget threshold reached",
        extra={
            "project_id": counter.project_id,
            "per": counter.kind.scope.value,
            "label": counter.kind.label,
            "subject": counter.subject,
            "period": counter.kind.period.value,
            "start": format_time(counter.interval.begin),
            "end": None if end is None else format_time(end),
            "threshold_percent": warning.threshold,
            "limit_usd": f"{warning.limit:f}",
            "settled_usd": f"{counter.settled:f}",
        },
    )
