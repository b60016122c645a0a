"""Liveness and readiness, for load balancers and supervisors, which have no credential."""

from __future__ import annotations

from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.domain.errors import Draining, LedgerUnavailable


class _HealthHandler(AdminHandler):
    is_open = True

    def respond_with_text(self, text: str) -> None:
        """Finish the response with a line of text."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{text}\n")


class LivenessHandler(_HealthHandler):
    """`GET /healthz`: 200 while the event loop runs."""

    def get(self) -> None:
        """Respond with "ok"."""
        self.respond_with_text("ok")


class ReadinessHandler(_HealthHandler):
    """`GET /readyz`: 200 if a new request would be accepted, else 503 and the reason."""

    def get(self) -> None:
        """Respond with the readiness."""
        if self.services.capacity.draining:
            raise Draining("the process is shutting down")
        if not self.services.ledger.healthy:
            raise LedgerUnavailable(f"the ledger cannot be written: {self.services.ledger.reason}")
        self.respond_with_text("ready")
