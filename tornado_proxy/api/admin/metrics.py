"""`GET /metrics`: the metrics of this process in the text format of Prometheus or of OpenMetrics."""

from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.observability import metrics


class MetricsHandler(AdminHandler):
    """The metrics of this process."""

    def get(self) -> None:
        """Respond with all metrics; in OpenMetrics, which the header Accept can ask for, with exemplars."""
        metrics.LEDGER_PENDING.set(self.services.ledger.pending)
        metrics.LEDGER_HEALTHY.set(1 if self.services.ledger.healthy else 0)
        metrics.flush()
        encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.set_header("Vary", "Accept")
        self.finish(encode(REGISTRY))
