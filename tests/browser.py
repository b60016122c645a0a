"""Open a page in headless Chromium and return the result that its script posts."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

#: Seconds.  A cold start of the browser on a busy machine takes several.
_TIMEOUT_S = 45

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Only loopback addresses resolve, and the browser makes no requests of its own.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root it runs only without a sandbox, and the page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # WebRTC on loopback: else it has no candidate there, and names of mDNS in place of addresses.
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--remote-debugging-port=0",  # without a debugging port headless Chromium exits when the page is loaded
)


def find_chromium() -> str:
    """Return the path of a browser; skip the test if there is none, or fail it if CI is `true`."""
    path = next((program for program in map(shutil.which, _NAMES) if program is not None), None)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"none of {', '.join(_NAMES)} is on the PATH; apt-get install chromium")
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on the PATH; apt-get install chromium")
    return path


class PageServer:
    """Serves one page on an origin of its own."""

    def __init__(self) -> None:
        self._page = b""
        self._results: queue.Queue[Any] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler_class())
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the end of the context."""
        with self._server:
            thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._server.shutdown()
                thread.join(_TIMEOUT_S)

    def open(self, folder: Path, page: str) -> Any:
        """Open `page` (HTML) in the browser; return the JSON that its script posts to /result."""
        self._page = page.encode()
        with _browser(find_chromium(), folder, self.origin + "/") as log:
            try:
                return self._results.get(timeout=_TIMEOUT_S)
            except queue.Empty:
                raise AssertionError(
                    f"the page posted no result; output of the browser:\n{log.read_text()[-4000:]}"
                ) from None

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond(server._page if self.path == "/" else b"")

            def do_POST(self) -> None:
                server._results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._respond(b"")

            def _respond(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        return Handler


@contextlib.contextmanager
def running_page_server() -> Iterator[PageServer]:
    """Serve a page on an origin that is known before the page, so that a configuration can name it."""
    server = PageServer()
    with server.running():
        yield server


def open_page(folder: Path, page: str) -> Any:
    """Return the JSON that the script in `page` (HTML) posts to /result."""
    with running_page_server() as server:
        return server.open(folder, page)


@contextlib.contextmanager
def _browser(program: str, folder: Path, url: str) -> Iterator[Path]:
    log = folder / "browser.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder / 'profile'}", url],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the browser and its child processes
        process.wait(_TIMEOUT_S)
