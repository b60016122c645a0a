"""`GET /metrics`: the metrics of this process in the text format of Prometheus or of OpenMetrics."""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.observability import metrics
from tornado_proxy.reports.budget_uses import BudgetUse

#: Seconds that the metrics wait for the database of the budgets.
_TIMEOUT_S = 2.0


class MetricsHandler(AdminHandler):
    """The metrics of this process."""

    async def get(self) -> None:
        """Respond with all metrics; in OpenMetrics, which the header Accept can ask for, with exemplars."""
        metrics.LEDGER_PENDING.set(self.services.ledger.pending)
        metrics.LEDGER_HEALTHY.set(1 if self.services.ledger.healthy else 0)
        metrics.flush()
        await self._set_budgets()
        encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.set_header("Vary", "Accept")
        self.finish(encode(REGISTRY))

    async def _set_budgets(self) -> None:
        """Set the gauges of budgets; without an answer of the database they are missing, and the others are there."""
        limits = self.services.snapshots.current.budget_limits
        uses: list[BudgetUse] = []
        with contextlib.suppress(LedgerUnavailable, TimeoutError):
            uses = await asyncio.wait_for(self.services.budgets.find_uses(limits), _TIMEOUT_S)
        metrics.BUDGET_SPENT.clear()
        metrics.BUDGET_LIMIT.clear()
        for use in uses:
            kind = use.kind
            labels = (kind.scope.value, kind.label or "", kind.period.value, kind.amount.value)
            start = "" if kind.start is None else kind.start.isoformat()
            metrics.BUDGET_SPENT.labels(use.project_id, *labels, start).set(float(use.settled))
            metrics.BUDGET_LIMIT.labels(use.project_id, *labels, start).set(float(use.limit))
