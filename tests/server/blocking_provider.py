"""A provider that keeps the user of each request, and blocks some responses until a test releases them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2 as httpx

from tests.harness import TIMEOUT_S, ProxyProcess, mint, wait_until

RESPONSE_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini",
        "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
).encode()

#: The same response as a stream: the usage is in the last chunk.
STREAM_BODY = b"".join(
    b"data: " + data + b"\n\n"
    for data in (
        b'{"id":"chatcmpl-1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}',
        RESPONSE_BODY,
        b"[DONE]",
    )
)

#: The total of each record: (10 x 0.15 + 5 x 0.60) / 1,000,000 USD, and 5 % on top.
TOTAL_USD = "0.000004725000"


@dataclass
class BlockingProvider:
    """`users` are the users of the complete requests received; one that starts with `held` waits for `release`."""

    url: str = ""
    users: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, user: str) -> None:
        """Wait for the request of `user`."""
        wait_until(lambda: user in self.users, f"a request of {user} at the provider")

    def wait_for_requests(self, count: int) -> None:
        """Wait for `count` more requests."""
        goal = len(self.users) + count
        wait_until(lambda: len(self.users) >= goal, f"{count} requests at the provider")


@contextlib.contextmanager
def running_blocking_provider() -> Iterator[BlockingProvider]:
    """Run a blocking provider, a thread for each connection."""
    provider = BlockingProvider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = request["user"]
            provider.users.append(user)
            if user.startswith("held"):
                provider.release.wait(TIMEOUT_S)
            self.send_response(200)
            if request.get("stream"):
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(STREAM_BODY), STREAM_BODY))
                return
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(RESPONSE_BODY)))
            self.end_headers()
            self.wfile.write(RESPONSE_BODY)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Ignore connections that break: tests kill the proxy."""

    server = Server(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        provider.release.set()
        server.shutdown()
        thread.join(TIMEOUT_S)
        server.server_close()


#: One client for all threads: each client creates a TLS context, which takes longer than a request.  Every request has
#: a connection of its own, so that the kernel spreads them over processes that share a port.
_client = httpx.Client(headers={"Connection": "close"}, timeout=TIMEOUT_S)


def chat(base_url: str, user: str, *, stream: bool = False) -> httpx.Response:
    """Send a chat completion request; `user` is in its body and, as the participant, in its record."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "user": user}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"Authorization": f"Bearer {mint(name=user)}"}
    return _client.post(f"{base_url}/v1/chat/completions", json=body, headers=headers)


@contextlib.contextmanager
def request_in_flight(proxy: ProxyProcess, provider: BlockingProvider, user: str) -> Iterator[list[httpx.Response]]:
    """Send a request that the provider blocks; release it at the end.  The list then holds its response."""
    responses: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: responses.append(chat(proxy.base_url, user)))
    caller.start()
    provider.wait_for(user)
    try:
        yield responses
    finally:
        provider.release.set()
        caller.join(TIMEOUT_S)
