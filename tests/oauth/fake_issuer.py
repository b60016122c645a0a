"""An issuer on a real port: serves the key set, discovery document and introspection answers that a test sets."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

KEYS_PATH, DISCOVERY_PATH, INTROSPECTION_PATH = "/jwks", "/.well-known/openid-configuration", "/introspect"


@dataclass
class Response:
    """A response of the issuer; `delay_s` passes before it is sent."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0

    @property
    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass
class FakeIssuer:
    """The issuer; `requests` lists the path of each request, `introspected` the forms, `authorizations` the headers."""

    url: str = ""
    responses: dict[str, Response] = field(default_factory=dict)
    #: The answers about opaque tokens; others are not active.
    tokens: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    introspected: list[dict[str, list[str]]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def publish(self, keys: dict[str, Any], **how: Any) -> None:
        self.responses[KEYS_PATH] = Response(keys, **how)
        self.responses.setdefault(DISCOVERY_PATH, Response({"issuer": self.url, "jwks_uri": self.url + KEYS_PATH}))

    def count(self, path: str) -> int:
        return self.requests.count(path)


@contextlib.contextmanager
def running_fake_issuer(port: int = 0) -> Iterator[FakeIssuer]:
    issuer = FakeIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            self.respond(issuer.responses.get(self.path, Response({}, status=404)))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            issuer.requests.append(self.path)
            issuer.introspected.append(form)
            issuer.authorizations.append(self.headers["Authorization"])
            known = issuer.tokens.get(form["token"][0], {"active": False})
            self.respond(issuer.responses.get(self.path, Response(known)))

        def respond(self, response: Response) -> None:
            time.sleep(response.delay_s)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client stops reading a body that is too large
                self.wfile.write(response.body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
