"""The processes that read large request bodies (gateway/bodies/worker.py), started when they are needed.

    read ── the caller's turn ── a free worker ── a thread: task and body into the pipe, result out ──> ParsedRequest
                                                    │   a recording's memory is shared, not copied (shared_body.py)
                                                    └── the worker ends: 503, takes too long: 413; a new one next time

A caller has one body read at a time, so that one token cannot occupy all workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from tornado_proxy.domain.errors import BodyTooLarge, Overloaded
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.bodies.shared_body import SharedBody
from tornado_proxy.gateway.bodies.worker_messages import BodyResult, BodyTask, encode_message, read_result
from tornado_proxy.providers.contract import ClientFrame, ParsedRequest

_log = logging.getLogger(__name__)

#: Worker processes.  Each takes 35 MB, and reads some 200 bodies of 1 MB a second.
MAX_WORKERS = 2

#: Seconds that a worker may take for a body, and more for each MiB.  A batch takes 0.05 s per MiB.
MAX_READ_S, MAX_READ_S_PER_MIB = 10.0, 1.0

#: Bytes written to a pipe at once: the thread takes the interpreter lock again after each.
_WRITE_BYTES = 1 * MIB

#: Environment variables that a worker needs: no key is among them.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")


#: Project, participant and user.
CallerKey = tuple[str, str | None, str | None]


class WorkerFailed(Exception):
    """A worker process has ended, or has an error of its own."""


class BodyWorkers:
    """Reads bodies in other processes.  Waits for a free worker, then for the worker, which has a time limit."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="body-worker")
        self._free = asyncio.Semaphore(MAX_WORKERS)
        self._idle: list[_Worker] = []
        self._running: set[_Worker] = set()
        self._turns: dict[CallerKey, asyncio.Lock] = {}
        self._waiting: Counter[CallerKey] = Counter()

    @contextlib.asynccontextmanager
    async def turn(self, caller: CallerKey) -> AsyncIterator[None]:
        """Wait until no other body of `caller` is read, and a worker is free."""
        lock = self._turns.setdefault(caller, asyncio.Lock())
        self._waiting[caller] += 1
        try:
            async with lock, self._free:
                yield
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller], self._turns[caller]

    async def read(self, task: BodyTask, body: bytes) -> ParsedRequest:
        """Return the facts of `body`, and the body to send.  Call it within turn().

        Raises:
            CallerError: the body cannot be read in one way only, or takes too much memory or time.
            Overloaded: the worker has ended.
            WorkerFailed: the worker has an error of its own.
        """
        result = await self._run(task, body)
        if result.facts is None:
            raise WorkerFailed(result.fault)
        return ParsedRequest(result.facts, body, result.splice)

    async def read_shared(self, task: BodyTask, body: SharedBody) -> ParsedRequest:
        """Return the facts of a form in shared memory, which is sent as it is; raise as read() does."""
        try:
            body.seal()
            result = await self._run(task, body)
            if result.facts is None:
                raise WorkerFailed(result.fault)
            return ParsedRequest(result.facts, b"", shared=body.map())
        finally:
            body.close()

    async def read_frame(self, task: BodyTask, frame: bytes) -> ClientFrame:
        """Return the request of a client's frame; raise as read() does."""
        result = await self._run(task, frame)
        if result.frame is None:
            raise WorkerFailed(result.fault)
        return result.frame

    async def _run(self, task: BodyTask, body: bytes | SharedBody) -> BodyResult:
        worker = self._idle.pop() if self._idle else _Worker()
        self._running.add(worker)
        loop = asyncio.get_running_loop()
        limit_s = MAX_READ_S + MAX_READ_S_PER_MIB * task.body_bytes / MIB
        deadline = loop.call_later(limit_s, worker.kill)
        try:
            result = await loop.run_in_executor(self._threads, worker.read, task, body)
        except (OSError, WorkerFailed) as error:
            if deadline.when() <= loop.time():
                raise BodyTooLarge(f"reading the body takes more than {limit_s:.0f} s; send fewer values") from error
            _log.error("body worker ended", extra={"reason": str(error), "path": task.path, "bytes": task.body_bytes})
            raise Overloaded(
                "the process that reads large bodies has ended; retry shortly", code="body_worker_ended"
            ) from error
        except asyncio.CancelledError:
            worker.kill()
            raise
        finally:
            deadline.cancel()
            self._running.discard(worker)
        self._idle.append(worker)
        if result.refusal is not None:
            raise result.refusal.error()
        return result

    def close(self) -> None:
        """End the workers."""
        for worker in self._running:
            worker.kill()
        self._threads.shutdown()
        for worker in self._idle:
            worker.close()
        self._idle.clear()


class _Worker:
    """One process, started by the first read()."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        #: Passes descriptors.
        self._channel: socket.socket | None = None
        self._killed = False

    def read(self, task: BodyTask, body: bytes | SharedBody) -> BodyResult:
        """Return the result for a body.  Runs in a thread.

        Raises:
            OSError: the process cannot be started, or has ended.
            WorkerFailed: the process has ended.
        """
        try:
            return self._read(task, body)
        except BaseException:
            self.close()
            raise

    def _read(self, task: BodyTask, body: bytes | SharedBody) -> BodyResult:
        if self._process is None or self._channel is None:
            self._process, self._channel = _start()
        process = self._process
        if self._killed:
            raise WorkerFailed("the server stops")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode_message(task))
        if isinstance(body, SharedBody):
            socket.send_fds(self._channel, [b"\0"], [body.fd])
        view = memoryview(body if isinstance(body, bytes) else b"")
        for start in range(0, len(view), _WRITE_BYTES):
            process.stdin.write(view[start : start + _WRITE_BYTES])
        process.stdin.flush()
        result = read_result(process.stdout)
        if result is None:
            raise WorkerFailed(f"exit code {process.wait()}")
        return result

    def kill(self) -> None:
        """End the process; a read() that waits for it fails."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, and close its pipes; no read() may be waiting."""
        self.kill()
        if self._process is not None:
            assert self._process.stdout is not None
            assert self._channel is not None
            self._channel.close()
            self._process.stdout.close()
            with contextlib.suppress(OSError):  # bytes that the worker has not read
                self._process.communicate()


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Return a new worker, and the socket that passes descriptors to it."""
    own, passed = socket.socketpair()
    environment = {name: value for name in _ENVIRONMENT if (value := os.environ.get(name)) is not None}
    process = subprocess.Popen(  # noqa: S603  # this package, and the number of a descriptor
        [sys.executable, "-P", "-m", "tornado_proxy.gateway.bodies.worker", str(passed.fileno())],
        pass_fds=[passed.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # The same modules as here, wherever this process was started.
        env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        # Ctrl-C ends the proxy, which drains first; the worker ends when its input does.
        start_new_session=True,
    )
    passed.close()
    assert process.stdin is not None
    # Only Linux has it; beyond the user's limit of pages the pipe keeps its 64 KiB.
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, _WRITE_BYTES)
    return process, own
