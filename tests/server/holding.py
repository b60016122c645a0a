"""A provider that remembers whom it was asked for, and holds answers back until a test lets them go."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2 as httpx

from tests.harness import PATIENCE_S, ProxyProcess, mint

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini",
        "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
).encode()

#: 10 x 0.15 + 5 x 0.60 dollars a million, and 5 % on top.
TOTAL = "0.000004725000"


@dataclass
class HoldingProvider:
    """`asked` are the users of the requests that came in whole; one that begins with `held` waits for `let_go`."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, user: str) -> None:
        wait_until(lambda: user in self.asked, f"a request of {user} at the provider")


@contextlib.contextmanager
def holding_provider() -> Iterator[HoldingProvider]:
    """Run one in threads of its own."""
    provider = HoldingProvider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            user = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["user"]
            provider.asked.append(user)
            if user.startswith("held"):
                provider.let_go.wait(PATIENCE_S)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A proxy that was killed is no error of the provider's."""

    server = Server(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        provider.let_go.set()
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


#: One client for all: each makes a TLS context, which takes longer than a call.  A connection each, so that the kernel
#: spreads them over the processes of a port.
_client = httpx.Client(headers={"Connection": "close"}, timeout=PATIENCE_S)


def chat(base_url: str, user: str) -> httpx.Response:
    """One call, whose user is both in the body and, as the participant, in the record."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "user": user}
    headers = {"Authorization": f"Bearer {mint(name=user)}"}
    return _client.post(f"{base_url}/v1/chat/completions", json=body, headers=headers)


@contextlib.contextmanager
def call_under_way(proxy: ProxyProcess, provider: HoldingProvider, user: str) -> Iterator[list[httpx.Response]]:
    """A call that the provider holds; its answer is in the list after the block, which has to let it go."""
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(chat(proxy.base_url, user)))
    caller.start()
    provider.wait_for(user)
    try:
        yield answers
    finally:
        provider.let_go.set()
        caller.join(PATIENCE_S)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds()` is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
