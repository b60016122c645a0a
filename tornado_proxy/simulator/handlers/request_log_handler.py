"""GET and DELETE /_simulator/requests: what the simulator saw.  Served only where it was started to record."""

from __future__ import annotations

from tornado.web import RequestHandler

from tornado_proxy.simulator.json_values import encode
from tornado_proxy.simulator.request_log import SeenRequest
from tornado_proxy.simulator.state import SimulatorState


class Requests(RequestHandler):
    """The last requests as JSON, oldest first, credentials and bodies included: for tests, with made-up keys."""

    def initialize(self, simulator: SimulatorState) -> None:
        """Take the simulator whose requests are shown."""
        self._seen = simulator.requests

    def get(self) -> None:
        """The requests."""
        self.set_header("Content-Type", "application/json")
        self.finish(encode({"requests": [_shown(request) for request in self._seen]}))

    def delete(self) -> None:
        """Forget them."""
        self._seen.clear()
        self.set_status(204)


def _shown(request: SeenRequest) -> dict[str, object]:
    return {
        "method": request.method,
        "target": request.target,
        "headers": [list(header) for header in request.headers],
        "body": request.body.decode(errors="replace"),
    }
