"""Count the files and the Python function calls that one JSON request takes through the server.

    python -m bench.request_path

    main thread: client ──> "server" thread: event loop ──> "simulator" thread
                                   │
                                   └──> log thread, ledger thread

One process runs all of it.  Every thread that the server starts is profiled; the client and the simulator are not.
After warm-up requests, which fill caches and open connections, each of a few requests is counted alone, and the one
with the fewest calls is reported: timers that fire meanwhile only add.  A timer that fires in each interval of that
length is no part of a request either: functions that run in each of a few idle intervals of the same length, before
the requests, are not counted (the search for stopped requests, four times a second).  The counts do not depend on the
machine's load, so they show a change that a time would hide.  They are a report: no check compares them with a limit.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

import tornado_proxy
from bench.contestants import SERVER_SECRETS
from tests import harness
from tornado_proxy import event_loop, snapshot
from tornado_proxy.app import Server
from tornado_proxy.observability import logs
from tornado_proxy.simulator import running_simulator

_PACKAGE = Path(tornado_proxy.__file__).parent

#: Requests before the first count; imports, connections and caches are complete after a few.
WARM_UP_REQUESTS = 20

#: Requests that are counted, each alone.
COUNTED_REQUESTS = 10

#: Idle intervals that are counted.
IDLE_INTERVALS = 4

#: Seconds between a response and the end of its count, and of an idle interval.  The ledger collects records for up to
#: 100 ms before it writes them, and the log thread collects lines for 20 ms.
_SETTLE_S = 0.3

_TIMEOUT_S = 30

_BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]})


@dataclass(frozen=True, slots=True)
class RequestPath:
    """The calls of one request.

    Attributes:
        python_calls: calls of Python functions in all threads of the server, in its code and its libraries.  A
            coroutine or generator counts each time it resumes, as CPython's profiler reports it.
        package_calls: those of them in tornado_proxy.
        loop_files: files of tornado_proxy entered by the event loop's thread; the other threads are the ledger's
            and the log's.
        calls_per_file: calls by file, as a path below tornado_proxy/.
    """

    python_calls: int
    package_calls: int
    loop_files: int
    calls_per_file: dict[str, int]


class CallCounter:
    """A profile function that counts calls by code object while `counting` is true: idle intervals, then requests."""

    def __init__(self) -> None:
        #: Set and cleared by the client's thread, read by the profiled ones.
        self.counting = False
        self._calls: Counter[tuple[CodeType, int]] = Counter()
        #: The functions that run in all idle intervals; None before the first one.
        self._timers: set[tuple[CodeType, int]] | None = None

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Called by the interpreter for each call and return in a profiled thread."""
        if self.counting and event == "call":
            self._calls[frame.f_code, threading.get_ident()] += 1

    def start(self) -> None:
        """Count from zero."""
        self._calls = Counter()
        self.counting = True

    def stop_idle(self) -> None:
        """Stop counting an interval without a request."""
        self.counting = False
        self._timers = set(self._calls) if self._timers is None else self._timers & set(self._calls)

    def stop(self, loop_thread: int) -> RequestPath:
        """Stop counting and return the counts of a request; `loop_thread` identifies the event loop's thread."""
        self.counting = False
        timers = self._timers or set()
        calls = Counter({function: count for function, count in self._calls.items() if function not in timers})
        per_file: Counter[str] = Counter()
        loop_files: set[str] = set()
        for (code, thread), count in calls.items():
            path = Path(code.co_filename)
            if not path.is_relative_to(_PACKAGE):
                continue
            file = str(path.relative_to(_PACKAGE))
            per_file[file] += count
            if thread == loop_thread:
                loop_files.add(file)
        return RequestPath(calls.total(), per_file.total(), len(loop_files), dict(sorted(per_file.items())))


class ProfiledServer:
    """The server on an event loop in a thread of its own, as `tornado-proxy serve` runs it."""

    def __init__(self, config: Path, counter: CallCounter) -> None:
        self.counter = counter
        self.port = 0
        self._config = config
        self._ready = threading.Event()
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    @property
    def ident(self) -> int:
        """The identifier of the running thread."""
        assert self._thread.ident is not None, "start() comes first"
        return self._thread.ident

    def start(self) -> None:
        """Start the thread and wait until `port` accepts clients.

        Raises:
            RuntimeError: the server does not listen in time.
        """
        self._thread.start()
        if not self._ready.wait(_TIMEOUT_S) or self._server is None:
            raise RuntimeError("the server did not start; its error is on standard error")
        self.port = self._server.port

    def stop(self) -> None:
        """Drain the server and wait for its thread."""
        if self._loop is not None and self._server is not None:
            self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        try:
            event_loop.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        server = Server(self._config, snapshot.build(self._config, 1))
        await server.start()
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._ready.set()
        await server.wait_stopped()


def measure(folder: Path) -> RequestPath:
    """Return the counts of one JSON chat request; configuration, ledger and log are written into `folder`."""
    os.environ.update(SERVER_SECRETS)
    # The simulator's thread starts before the profiler is set, so it is not counted.
    with running_simulator() as upstream, _profiled_server(harness.write_config(folder, upstream)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_S)
        client.connect()
        try:
            headers = {"Authorization": f"Bearer {harness.mint()}", "Content-Type": "application/json"}
            for _ in range(WARM_UP_REQUESTS):
                _send_request(client, headers)
            time.sleep(_SETTLE_S)
            for _ in range(IDLE_INTERVALS):
                server.counter.start()
                time.sleep(_SETTLE_S)
                server.counter.stop_idle()
            paths = [_count_request(client, headers, server) for _ in range(COUNTED_REQUESTS)]
        finally:
            client.close()
    return min(paths, key=lambda path: path.python_calls)


@contextmanager
def _profiled_server(config: Path) -> Iterator[ProfiledServer]:
    counter = CallCounter()
    threading.setprofile(counter)  # for every thread that starts from here on
    with (config.parent / "server.log").open("w") as log:
        with redirect_stderr(log):
            writer = logs.start("INFO")
        server = ProfiledServer(config, counter)
        try:
            server.start()
            yield server
        finally:
            server.stop()
            writer.stop()
            threading.setprofile(None)


def _count_request(client: http.client.HTTPConnection, headers: dict[str, str], server: ProfiledServer) -> RequestPath:
    server.counter.start()
    _send_request(client, headers)
    time.sleep(_SETTLE_S)
    return server.counter.stop(server.ident)


def _send_request(client: http.client.HTTPConnection, headers: dict[str, str]) -> None:
    fields = {"Host": "127.0.0.1", "Content-Length": str(len(_BODY)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    # In one write: a body that arrives after its head enters two more files, which would depend on the kernel.
    client.sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n{_BODY}".encode())
    response = http.client.HTTPResponse(client.sock, method="POST")
    response.begin()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"the server responded with status {response.status}: {body[:300]!r}")


def report(path: RequestPath) -> str:
    """Return the counts as text: both totals, then the files with their calls, sorted by path."""
    lines = [
        f"files of tornado_proxy: {len(path.calls_per_file)}, of which on the event loop's thread {path.loop_files}",
        f"Python function calls: {path.python_calls:,}, of which in tornado_proxy {path.package_calls:,}",
        "",
        f"{'calls':>6}  file",
        *(f"{calls:>6}  {file}" for file, calls in path.calls_per_file.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    with tempfile.TemporaryDirectory(prefix="request-path-") as folder:
        path = measure(Path(folder))
    print(report(path))


if __name__ == "__main__":
    main()
