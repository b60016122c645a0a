"""Tornado's curl client, with exchanges that stream, pause and stop in place of its buffered fetch().

What is Tornado's: the multi handle and how the loop drives it.  What is ours: a pool of easy handles that keep their
options from one exchange to the next, and callbacks that go straight to an `Exchange`.  No HTTPRequest, HTTPResponse,
queue or per-request timer stands between (docs/performance.md has the figures).

The private names of CurlAsyncHTTPClient used here are `_multi`, `_fds`, `_handle_timeout` and the hooks `_set_timeout`
and `_finish`, which its `_finish_pending_requests` calls; Tornado is pinned for their sake, and tests/upstream/ holds
them to their contract.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient

from tornado_proxy.domain.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.upstream.http.connection_gate import ConnectionGate
from tornado_proxy.upstream.http.deadline import Deadline
from tornado_proxy.upstream.http.easy_handle import EasyHandle
from tornado_proxy.upstream.http.exchange import Exchange
from tornado_proxy.upstream.http.request import UpstreamRequest
from tornado_proxy.upstream.http.send_buffer import keep_untouched_pages_out

#: Connections kept open for the next request, over all providers.
_KEPT_CONNECTIONS = 512

#: Seconds between two looks for exchanges whose provider has gone silent.
_IDLE_SWEEP_S = 1.0

_NOT_REACHED_IN_TIME = "the provider could not be reached in time"


class UpstreamClient(CurlAsyncHTTPClient):
    """Runs exchanges.  Make it with `UpstreamClient(force_instance=True)` inside a running loop; close() ends all."""

    def initialize(  # type: ignore[override]  # as Tornado itself overrides its base
        self, max_clients: int = 0, defaults: dict[str, Any] | None = None, max_body_size: int = 0
    ) -> None:
        """Called by Tornado's constructor; its pool of handles stays empty, and no limit of its holds here."""
        keep_untouched_pages_out()
        self._asyncio_loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._asyncio_loop, self._handle_timeout)
        super().initialize(max_clients=max_clients, defaults=defaults, max_body_size=max_body_size)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT_CONNECTIONS)
        self._running: dict[Exchange, EasyHandle] = {}
        self._pool: list[EasyHandle] = []
        self._openings = ConnectionGate(self._asyncio_loop, self._give, self._end_late)
        self._sweep = self._asyncio_loop.call_later(_IDLE_SWEEP_S, self._end_silent_exchanges)

    def start(self, request: UpstreamRequest) -> Exchange:
        """Send `request`; the exchange is under way when this returns."""
        handle = self._pool.pop() if self._pool else EasyHandle()
        exchange = Exchange(self._asyncio_loop, request, self)
        handle.prepare(request, exchange)
        self._running[exchange] = handle
        self._openings.start(handle, request.origin, request.connect_timeout_s)
        return exchange

    def _give(self, handle: EasyHandle) -> None:
        self._multi.add_handle(handle.curl)
        handle.give_credit()  # not before: what was said of speed is forgotten when a handle is added

    @property
    def running(self) -> int:
        """Exchanges under way."""
        return len(self._running)

    def close(self) -> None:
        """Abort what runs and give the handles back to libcurl."""
        self._sweep.cancel()
        for exchange in list(self._running):
            exchange.abort("the server is going down")
        for handle in self._pool:
            handle.close()
        self._pool.clear()
        for fd in self._fds:
            self.io_loop.remove_handler(fd)
        self._deadline.clear()
        super().close()

    def _set_timeout(self, msecs: int) -> None:
        """Called by libcurl; -1 is for none, which Tornado takes for at once."""
        self._deadline.set(None if msecs < 0 else msecs / 1000)

    def _finish(self, curl: pycurl.Curl, curl_error: int | None = None, curl_message: str | None = None) -> None:
        exchange: Exchange = curl.handle.exchange  # type: ignore[attr-defined]  # set in EasyHandle
        handle = self._running.pop(exchange)
        self._multi.remove_handle(curl)
        if handle.opens is not None:
            self._openings.leave(handle)
        error = None if curl_error is None else _upstream_error(curl, curl_error, curl_message or "")
        self._put_away(handle)
        exchange.on_finished(error)

    def stop(self, exchange: Exchange) -> bool:
        """Called by an exchange that is aborted; whether any byte of its request had left."""
        handle = self._running.pop(exchange)
        given = handle.opens is None or self._openings.leave(handle)
        if given:
            # The only way that works at once: an idle transfer runs no libcurl callback at all.
            self._multi.remove_handle(handle.curl)
        sent = given and _was_sent(handle.curl)
        self._put_away(handle)
        return sent

    def _put_away(self, handle: EasyHandle) -> None:
        """Keep it for the next exchange; upstream/http/send_buffer.py says why as many as ever ran at once are kept."""
        handle.release()
        if handle.large:
            handle.close()
        else:
            self._pool.append(handle)

    def resume(self, exchange: Exchange) -> None:
        """Called by an exchange that may take more."""
        handle = self._running.get(exchange)
        if handle is None:
            return
        # An error here: the transfer failed while it was paused; the multi handle reports it on its next turn.
        with contextlib.suppress(pycurl.error):
            handle.curl.pause(pycurl.PAUSE_CONT)
            handle.give_credit()  # not before: libcurl would forget that the transfer is paused, and never go on
        # Without a poke a resumed transfer waits for the next unrelated event.
        self._set_timeout(0)

    def _end_late(self, handle: EasyHandle) -> None:
        if handle.exchange is not None:
            handle.exchange.expire(_NOT_REACHED_IN_TIME)

    def _end_silent_exchanges(self) -> None:
        now = self._asyncio_loop.time()
        for exchange in [e for e in self._running if e.idle_since(now) > e.idle_timeout_s]:
            exchange.expire(f"the provider sent nothing for {exchange.idle_timeout_s:g} s")
        self._sweep = self._asyncio_loop.call_later(_IDLE_SWEEP_S, self._end_silent_exchanges)


def _upstream_error(curl: pycurl.Curl, code: int, message: str) -> UpstreamError:
    sent = _was_sent(curl)
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return UpstreamTimeout(_NOT_REACHED_IN_TIME, request_sent=sent)
    if sent:
        return UpstreamError(f"the connection to the provider broke: {message}")
    return UpstreamUnreachable(f"the provider could not be reached: {message}", request_sent=False)


def _was_sent(curl: pycurl.Curl) -> bool:
    """Whether any byte of the request has left, on this connection or one before it: else nothing can be charged."""
    size: int = curl.getinfo(pycurl.REQUEST_SIZE)
    return size > 0
