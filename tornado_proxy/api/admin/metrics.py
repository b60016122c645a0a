"""`GET /metrics`: the metrics of this process in the Prometheus text format."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.observability import metrics


class MetricsHandler(AdminHandler):
    """The metrics of this process."""

    def get(self) -> None:
        """Respond with all metrics."""
        metrics.LEDGER_PENDING.set(self.services.ledger.pending)
        metrics.LEDGER_HEALTHY.set(1 if self.services.ledger.healthy else 0)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        metrics.flush()
        self.finish(generate_latest())
