"""A page in headless Chromium that tells the test, once, what came of it."""

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

#: Seconds; a cold start of the browser on a busy machine takes a few.
_TIMEOUT_S = 45

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Nothing but loopback is resolved, and nothing is fetched for the browser's own sake.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root with one, and the page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",  # keeps it open
)


def find_chromium() -> str:
    """The browser's program; without one the test is skipped, unless CI is set to true: there it fails."""
    found = next((path for path in map(shutil.which, _NAMES) if path is not None), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"none of {', '.join(_NAMES)} is on the PATH; apt-get install chromium")
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on the PATH; apt-get install chromium")
    return found


def open_page(folder: Path, page: str) -> Any:
    """What the script in `page` (HTML) posts to /result, as JSON."""
    program = find_chromium()
    results: queue.Queue[Any] = queue.Queue()
    with _serving(page, results) as url, _browsing(program, folder, url) as log:
        try:
            return results.get(timeout=_TIMEOUT_S)
        except queue.Empty:
            raise AssertionError(f"the page said nothing; the browser said:\n{log.read_text()[-4000:]}") from None


@contextlib.contextmanager
def _serving(page: str, results: queue.Queue[Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(page.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the test says what is wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join(_TIMEOUT_S)


@contextlib.contextmanager
def _browsing(program: str, folder: Path, url: str) -> Iterator[Path]:
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
            os.killpg(process.pid, signal.SIGKILL)  # it and its children, which are its process group
        process.wait(_TIMEOUT_S)
