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


def open_page(folder: Path, page: str) -> Any:
    """Return the JSON that the script in `page` (HTML) posts to /result."""
    program = find_chromium()
    results: queue.Queue[Any] = queue.Queue()
    with _page_server(page, results) as url, _browser(program, folder, url) as log:
        try:
            return results.get(timeout=_TIMEOUT_S)
        except queue.Empty:
            raise AssertionError(
                f"the page posted no result; output of the browser:\n{log.read_text()[-4000:]}"
            ) from None


@contextlib.contextmanager
def _page_server(page: str, results: queue.Queue[Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(page.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._respond(b"")

        def _respond(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join(_TIMEOUT_S)


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
