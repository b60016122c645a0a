"""A program that gets alerts: verifies each message with the library of Standard Webhooks, and responds as told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook as Verifier

from tornado_proxy.config.sections.alerts import Webhook
from tornado_proxy.domain.alert import CHOSEN_TYPES, AlertType
from tornado_proxy.domain.identity import Secret

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """The messages that arrived: (id, content).  The n-th request gets the n-th status, the last one ever after."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def webhook(self, name: str = "ops", *types: AlertType) -> Webhook:
        """Return this receiver as the configuration names it."""
        return Webhook(name, Secret(self.url), Secret(SECRET), frozenset(types or CHOSEN_TYPES))

    def list_types(self) -> list[str]:
        """Return the types of the messages."""
        return [content["type"] for _, content in list(self.messages)]

    def find(self, kind: AlertType) -> list[dict[str, Any]]:
        """Return the data of the messages of a type."""
        return [content["data"] for _, content in list(self.messages) if content["type"] == kind]


@contextlib.contextmanager
def running_receiver(**members: Any) -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver(**members)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            content = Verifier(SECRET).verify(body, headers)
            index = min(len(receiver.messages), len(receiver.statuses) - 1)
            receiver.messages.append((headers["webhook-id"], content))
            time.sleep(receiver.delay_s)
            self.send_response(receiver.statuses[index])
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/alerts"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
