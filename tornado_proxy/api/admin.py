"""The admin port: liveness, readiness, metrics and reload.  The client port serves none of them.

It asks for no credential, so no page in an operator's browser may reach it.  A page's request to another origin has an
Origin header.  A page whose own name resolves to this machine (DNS rebinding) has that name in Host; such a name has a
dot and is not the machine's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado.web import Application, RequestHandler

from tornado_proxy.domain.errors import ConfigError
from tornado_proxy.gateway.services import Services
from tornado_proxy.observability import metrics

Reload = Callable[[], Awaitable[None]]


class _AdminHandler(RequestHandler):
    def initialize(self, services: Services, reload: Reload) -> None:
        self.services = services
        self.reload = reload

    def prepare(self) -> None:
        """Reject requests of pages."""
        if "Origin" in self.request.headers:
            self._reject("the admin port serves no pages: send the request without Origin")
        elif not _is_machine_name(self.request.host_name):
            self._reject("the admin port does not know this Host: use the IP address or the name of the machine")

    def _reject(self, reason: str) -> None:
        self.set_status(403)
        self.finish(f"{reason}\n")

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")


def _is_machine_name(name: str) -> bool:
    """Return True for an IP address, a name without a dot (localhost, a service of a cluster) or the machine's name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    return "." not in name or name == socket.gethostname().lower()


class HealthHandler(_AdminHandler):
    """`GET /healthz`: 200 while the event loop runs."""

    def get(self) -> None:
        """Respond with "ok"."""
        self.finish("ok\n")


class ReadyHandler(_AdminHandler):
    """`GET /readyz`: 200 if a new request would be accepted, else 503 and the reason."""

    def get(self) -> None:
        """Respond with the readiness."""
        if self.services.capacity.draining:
            self.set_status(503)
            self.finish("shutting down\n")
        elif not self.services.ledger.healthy:
            self.set_status(503)
            self.finish(f"ledger: {self.services.ledger.reason}\n")
        else:
            self.finish("ready\n")


class MetricsHandler(_AdminHandler):
    """`GET /metrics`: the Prometheus text format."""

    def get(self) -> None:
        """Respond with all metrics."""
        metrics.LEDGER_PENDING.set(self.services.ledger.pending)
        metrics.LEDGER_HEALTHY.set(1 if self.services.ledger.healthy else 0)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        metrics.flush()
        self.finish(generate_latest())


class ReloadHandler(_AdminHandler):
    """`POST /reload`: reload as SIGHUP does; 422 and every fault if the new configuration is invalid."""

    async def post(self) -> None:
        """Reload and respond with the current generation."""
        try:
            await self.reload()
        except ConfigError as error:
            self.set_status(422)
            self.finish(f"{error}\n")
            return
        self.finish(f"generation {self.services.snapshots.current.generation}\n")


def admin_application(services: Services, reload: Reload) -> Application:
    """Return the admin port's application."""
    shared = {"services": services, "reload": reload}
    return Application(
        [
            (r"/healthz", HealthHandler, shared),
            (r"/readyz", ReadyHandler, shared),
            (r"/metrics", MetricsHandler, shared),
            (r"/reload", ReloadHandler, shared),
        ],
        log_function=lambda handler: None,
    )
