"""Runs exchanges on one of libcurl's multi handles, which the event loop drives.

    start ──> connection gate ──> libcurl ── callbacks of an easy handle ──> Exchange
                                     │
    socket ready, deadline reached ──┴──> transfers that have ended ──> Exchange.on_finished

libcurl tells which sockets to watch (EpollSockets) and when to be called next (Deadline); it is told which sockets are
ready (_run).  Easy handles keep their options between exchanges (docs/performance.md has the figures).
Source: https://curl.se/libcurl/c/libcurl-multi.html, "Multi socket".

libcurl adds and removes its sockets in each transfer.  On asyncio's own loops every change creates or drops a watcher.
In an epoll set of our own it is one system call, and a kept connection stays in the set.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

import pycurl

from tornado_proxy.domain.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.upstream.address_guard import REFUSAL
from tornado_proxy.upstream.http.connection_gate import ConnectionGate
from tornado_proxy.upstream.http.easy_handle import EasyHandle
from tornado_proxy.upstream.http.exchange import Exchange
from tornado_proxy.upstream.http.messages import UpstreamRequest
from tornado_proxy.upstream.http.send_buffer import set_mmap_threshold

#: Connections kept open for later requests, over all providers.  libcurl's default, four per easy handle, changes with
#: the number of running transfers and closes connections after a burst.
_MAX_KEPT_CONNECTIONS = 512

#: Seconds between two sweeps for exchanges past their idle timeout.  One sweep for all costs less than a timer each.
_IDLE_SWEEP_INTERVAL_S = 1.0

#: Called with a socket and libcurl's name of its events (CURL_CSELECT_...).
OnReady = Callable[[int, int], None]

#: Ready sockets that one turn of the loop serves, so that timers and other sockets are not delayed behind thousands.
_MAX_EVENTS_PER_TURN = 256

_CONNECT_TIMEOUT_MESSAGE = "the provider could not be reached in time"

#: Results for which libcurl has no message: CURLE_TOO_LARGE, which pycurl does not name.
_UNDESCRIBED = {100: "its headers are too large"}


class UpstreamClient:
    """Runs exchanges.  Create it on a running event loop.

    start() sends a request; close() aborts all exchanges.
    """

    def __init__(self) -> None:
        set_mmap_threshold()
        self._asyncio_loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._asyncio_loop, self._on_deadline)
        self._sockets = _SOCKET_SET(self._asyncio_loop, self._run)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._deadline.set)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._sockets.on_socket)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _MAX_KEPT_CONNECTIONS)
        #: The handles whose transfers libcurl runs.  An attribute of a Curl would take 4,000 instructions to read.
        self._added: dict[pycurl.Curl, EasyHandle] = {}
        self._running: dict[Exchange, EasyHandle] = {}
        self._pool: list[EasyHandle] = []
        self._gate = ConnectionGate(self._asyncio_loop, self._add_to_multi, self._on_connect_timeout)
        self._sweep_timer = self._asyncio_loop.call_later(_IDLE_SWEEP_INTERVAL_S, self._expire_idle_exchanges)

    def start(self, request: UpstreamRequest) -> Exchange:
        """Start to send `request`; return the running exchange."""
        handle = self._pool.pop() if self._pool else EasyHandle()
        handle.prepare(request)
        exchange = Exchange(self._asyncio_loop, request, self, may_be_http2=handle.may_be_http2)
        handle.exchange = exchange
        self._running[exchange] = handle
        is_alone = not self._added
        if self._gate.open_until.get(handle.origin, 0.0) > self._asyncio_loop.time():
            self._add_to_multi(handle)
        else:
            self._gate.enter(handle, handle.origin, request.connect_timeout_s)
        if is_alone:
            # Others that begin in one turn of the loop are run together in the next one: to run each at once would send
            # it earlier, and measured a twentieth more CPU time for a JSON request.
            self._deadline.reach()
        return exchange

    def _add_to_multi(self, handle: EasyHandle) -> None:
        self._multi.add_handle(handle.curl)
        self._added[handle.curl] = handle
        # After add_handle(), which resets the speed limit.
        handle.renew_credit()

    def _remove_from_multi(self, handle: EasyHandle) -> None:
        self._multi.remove_handle(handle.curl)
        del self._added[handle.curl]

    @property
    def running(self) -> int:
        """The number of running exchanges."""
        return len(self._running)

    def close(self) -> None:
        """Abort all running exchanges and free libcurl's handles."""
        self._sweep_timer.cancel()
        for exchange in list(self._running):
            exchange.abort("the server is going down")
        for handle in self._pool:
            handle.close()
        self._pool.clear()
        # It may still ask to watch sockets of connections that end with a TLS shutdown.
        self._multi.close()
        self._sockets.close()
        self._deadline.clear()

    def _run(self, fd: int, action: int) -> None:
        """Let libcurl run the transfers of a ready socket, or those whose time has come."""
        try:
            _, running = self._multi.socket_action(fd, action)
        except pycurl.error:
            running = -1
        if running != len(self._added):
            self._finish_ended_transfers()

    def _on_deadline(self) -> None:
        self._run(pycurl.SOCKET_TIMEOUT, 0)
        # Its clock may be late: then nothing was due for libcurl, and it does not move its deadline again.
        self._deadline.set(self._multi.timeout())

    def _finish_ended_transfers(self) -> None:
        waiting = 1
        while waiting:
            waiting, complete, failed = self._multi.info_read()
            for curl in complete:
                self._finish(self._added[curl], None)
            for curl, code, message in failed:
                handle = self._added[curl]
                self._finish(handle, _make_error(handle, code, message))

    def _finish(self, handle: EasyHandle, error: UpstreamError | None) -> None:
        exchange = handle.exchange
        assert exchange is not None, "a handle has its exchange until the transfer is removed"
        del self._running[exchange]
        self._remove_from_multi(handle)
        if handle.gated_origin is not None:
            self._gate.leave(handle)
        self._recycle(handle)
        exchange.on_finished(error)

    def stop(self, exchange: Exchange) -> bool:
        """Called by an exchange to abort its transfer.  Return True if any byte of its request was sent."""
        handle = self._running.pop(exchange)
        was_added = handle.gated_origin is None or self._gate.leave(handle)
        if was_added:
            # The only way that works at once: libcurl calls no callback of an idle transfer, so no return value of a
            # callback can abort it.  Measured: the provider sees the close within 0.3-1.9 ms.
            self._remove_from_multi(handle)
        sent = was_added and _was_sent(handle)
        self._recycle(handle)
        return sent

    def _recycle(self, handle: EasyHandle) -> None:
        """Keep `handle` for the next exchange.  The pool has no limit; upstream/http/send_buffer.py explains why."""
        handle.release()
        if handle.large:
            handle.close()
        else:
            self._pool.append(handle)

    def resume(self, exchange: Exchange) -> None:
        """Called by an exchange that can take more bytes."""
        handle = self._running.get(exchange)
        if handle is None:
            return
        # pause() raises if the transfer failed while it was paused; libcurl reports that failure on its next turn.
        with contextlib.suppress(pycurl.error):
            handle.curl.pause(pycurl.PAUSE_CONT)
            # After pause(): the other way round, libcurl forgets that the transfer is paused and never resumes it.
            handle.renew_credit()
        # Let libcurl run now, or the resumed transfer waits for the next unrelated event.
        self._deadline.set(0)

    def _on_connect_timeout(self, handle: EasyHandle) -> None:
        if handle.exchange is not None:
            handle.exchange.expire(_CONNECT_TIMEOUT_MESSAGE)

    def _expire_idle_exchanges(self) -> None:
        now = self._asyncio_loop.time()
        for exchange in [exchange for exchange in self._running if exchange.idle_s(now) > exchange.idle_timeout_s]:
            exchange.expire(f"the provider sent nothing for {exchange.idle_timeout_s:g} s")
        self._sweep_timer = self._asyncio_loop.call_later(_IDLE_SWEEP_INTERVAL_S, self._expire_idle_exchanges)


class EpollSockets:
    """Sockets in an epoll set.

    Args:
        loop: The event loop that watches the set.
        on_ready: Called for each ready socket, from the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ready: OnReady) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._set = select.epoll()
        #: The events that libcurl waits for, by socket.
        self._wanted: dict[int, int] = {}
        #: The events of epoll by libcurl's name of them (CURL_POLL_...), and libcurl's name of what has occurred.
        self._events = {
            pycurl.POLL_IN: select.EPOLLIN,
            pycurl.POLL_OUT: select.EPOLLOUT,
            pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
        }
        self._actions = {
            select.EPOLLIN: pycurl.CSELECT_IN,
            select.EPOLLOUT: pycurl.CSELECT_OUT,
            select.EPOLLIN | select.EPOLLOUT: pycurl.CSELECT_IN | pycurl.CSELECT_OUT,
        }
        loop.add_reader(self._set.fileno(), self._serve_ready)

    def on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        """Called by libcurl to change the events that a socket is watched for."""
        events = self._events.get(event, 0)
        if not events:
            # A kept connection stays in the set until its next request: it has no event unless the provider closes it.
            if self._wanted.pop(fd, 0) & select.EPOLLOUT:
                self._unregister(fd)
            return
        self._wanted[fd] = events
        try:
            self._set.modify(fd, events)
        except FileNotFoundError:  # not in the set, or libcurl closed it and this is another one with its number
            self._set.register(fd, events)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._set.fileno())
        self._wanted.clear()
        self._set.close()

    def _serve_ready(self) -> None:
        for fd, ready in self._set.poll(0, _MAX_EVENTS_PER_TURN):
            wanted = self._wanted.get(fd)
            if wanted is None:  # removed, in this turn or before
                self._unregister(fd)
            else:
                # After an error or the end of a connection (EPOLLERR, EPOLLHUP) the next read or write reports it.
                self._on_ready(fd, self._actions[ready & wanted or wanted])

    def _unregister(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # closed, so that the kernel has removed it
            self._set.unregister(fd)


class LoopSockets:
    """Sockets that the event loop itself watches, on systems without epoll; the arguments are those of EpollSockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ready: OnReady) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._watched: set[int] = set()

    def on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        """Called by libcurl to change the events that a socket is watched for."""
        self._remove(fd)
        if event in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            self._watched.add(fd)
            self._loop.add_reader(fd, self._on_ready, fd, pycurl.CSELECT_IN)
        if event in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self._watched.add(fd)
            self._loop.add_writer(fd, self._on_ready, fd, pycurl.CSELECT_OUT)

    def close(self) -> None:
        """Stop watching."""
        for fd in list(self._watched):
            self._remove(fd)

    def _remove(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.discard(fd)
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)


class Deadline:
    """Calls `on_reached` from the event loop when the deadline has passed, never from within set().

    libcurl moves its deadline four times per exchange: to now when it starts, then to the end of its connect timeout.
    A started timer therefore keeps running, and checks the deadline again when it fires: that is cheaper than to cancel
    and start one per move.  A deadline that is now has a callback of its own, so that the timer is kept for later ones.
    """

    __slots__ = ("_at", "_fires_at", "_loop", "_on_reached", "_soon", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_reached: Callable[[], None]) -> None:
        self._loop = loop
        self._on_reached = on_reached
        self._at: float | None = None
        #: The callback of the next turn of the loop.
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0

    def set(self, milliseconds: int) -> None:
        """Move the deadline to `milliseconds` from now; a negative number removes it."""
        if milliseconds < 0:
            self._at = None
            return
        self._at = self._loop.time() + milliseconds / 1000
        if milliseconds:
            self._start_timer(self._at)
        elif self._soon is None:
            self._soon = self._loop.call_soon(self._fire_soon)

    def reach(self) -> None:
        """Call `on_reached` now, if there is a deadline."""
        if self._at is not None:
            self._at = None
            self._cancel_soon()
            self._on_reached()

    def clear(self) -> None:
        """Remove the deadline and cancel the callbacks."""
        self._at = None
        self._cancel_soon()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel_soon(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _start_timer(self, at: float) -> None:
        """Let the timer fire at `at` (loop time), unless it fires earlier."""
        if self._timer is not None:
            if self._fires_at <= at:
                return
            self._timer.cancel()
        self._fires_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire_soon(self) -> None:
        self._soon = None
        self._check()

    def _fire(self) -> None:
        self._timer = None
        self._check()

    def _check(self) -> None:
        if self._at is None:
            return
        if self._at > self._loop.time():
            self._start_timer(self._at)
        else:
            self._at = None
            self._on_reached()


def _make_error(handle: EasyHandle, code: int, message: str) -> UpstreamError:
    """Return the error for libcurl's result `code` (CURLE_...) and its message."""
    sent = _was_sent(handle)
    if handle.refused_address and not sent:
        return UpstreamUnreachable(REFUSAL, request_sent=False)
    # No CURLOPT_TIMEOUT is set, so this code can only mean the connect timeout.
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return UpstreamTimeout(_CONNECT_TIMEOUT_MESSAGE, request_sent=sent)
    reason = message or _UNDESCRIBED.get(code, f"libcurl's error {code}")
    if sent:
        return UpstreamError(f"the connection to the provider broke: {reason}")
    return UpstreamUnreachable(f"the provider could not be reached: {reason}", request_sent=False)


def _was_sent(handle: EasyHandle) -> bool:
    """Return False if the provider cannot charge the request: no byte of it was sent, or its end was withheld."""
    size: int = handle.curl.getinfo(pycurl.REQUEST_SIZE)
    return size > 0 and not (handle.payload is not None and handle.payload.is_withheld)


_SOCKET_SET = EpollSockets if hasattr(select, "epoll") else LoopSockets
