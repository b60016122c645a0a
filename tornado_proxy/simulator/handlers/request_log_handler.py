"""GET and DELETE /_simulator/requests: the recorded requests.  Served only with `record`."""

from __future__ import annotations

from tornado.web import RequestHandler

from tornado_proxy.simulator.json_values import encode
from tornado_proxy.simulator.request_log import RecordedRequest
from tornado_proxy.simulator.state import SimulatorState


class RequestLogHandler(RequestHandler):
    """Serves the last requests as JSON, oldest first.

    Credentials and bodies are included, so use it with made-up keys only.
    """

    def initialize(self, simulator: SimulatorState) -> None:
        """Called by Tornado before a request is handled."""
        self._requests = simulator.requests

    def get(self) -> None:
        """Respond with the recorded requests."""
        self.set_header("Content-Type", "application/json")
        self.finish(encode({"requests": [_request_json(request) for request in self._requests]}))

    def delete(self) -> None:
        """Delete the recorded requests."""
        self._requests.clear()
        self.set_status(204)


def _request_json(request: RecordedRequest) -> dict[str, object]:
    return {
        "method": request.method,
        "target": request.target,
        # Pairs, not an object: order and repetition are what tests of a proxy compare.
        "headers": [list(header) for header in request.headers],
        "body": request.body.decode(errors="replace"),
    }
