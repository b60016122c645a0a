"""Tornado's curl client, with exchanges that stream, pause and stop in place of its buffered fetch().

What is Tornado's: the multi handle and how the loop drives it.  What is ours: a pool of easy handles that keep their
options from one exchange to the next, and callbacks that go straight to an `Exchange`.  No HTTPRequest, HTTPResponse,
queue or per-request timer stands between (docs/performance.md has the figures).

The private names of CurlAsyncHTTPClient used here are `_multi`, `_fds`, `_handle_events`, `_handle_timeout` and the
hooks `_handle_socket`, `_set_timeout` and `_finish`, which its `_finish_pending_requests` calls; Tornado is pinned for
their sake, and tests/upstream/ holds them to their contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import certifi
import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.ioloop import IOLoop

from tornado_proxy.domain.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.upstream.exchange import CREDIT_BYTES, Exchange, Payload, UpstreamRequest

#: Idle easy handles that are kept for reuse; a handle costs about 5 KB.
_POOL_SIZE = 256

#: Bytes libcurl reads at a time.  Larger reads gain little on loopback and cost memory for each open stream.
_BUFFER_BYTES = 16 * 1024

#: Bytes libcurl sends at a time.  It keeps a buffer of that size for as long as the answer lasts, so that a stream with
#: a short prompt must not have a large one; 16 KiB is its least.
_SMALL_SENDS = 16 * 1024
_LARGE_SENDS = 256 * 1024

#: Connections kept open for the next request, over all providers.
_KEPT_CONNECTIONS = 512

#: Seconds between two looks for exchanges whose provider has gone silent.
_IDLE_SWEEP_S = 1.0

#: Faults that happen before any byte of the request has left: nothing can have been charged.
_NOTHING_SENT = frozenset(
    {
        pycurl.E_COULDNT_RESOLVE_HOST,
        pycurl.E_COULDNT_RESOLVE_PROXY,
        pycurl.E_COULDNT_CONNECT,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_URL_MALFORMAT,
        pycurl.E_UNSUPPORTED_PROTOCOL,
    }
)


class UpstreamClient(CurlAsyncHTTPClient):
    """Runs exchanges.  Make it with `UpstreamClient(force_instance=True)` inside a running loop; close() ends all."""

    def initialize(  # type: ignore[override]  # as Tornado itself overrides its base
        self, max_clients: int = 0, defaults: dict[str, Any] | None = None, max_body_size: int = 0
    ) -> None:
        """Called by Tornado's constructor; its pool of handles stays empty, and no limit of its holds here."""
        self._asyncio_loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        super().initialize(max_clients=max_clients, defaults=defaults, max_body_size=max_body_size)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT_CONNECTIONS)
        self._running: dict[Exchange, _Handle] = {}
        self._pool: list[_Handle] = []
        self._sweep = self._asyncio_loop.call_later(_IDLE_SWEEP_S, self._end_silent_exchanges)

    def start(self, request: UpstreamRequest) -> Exchange:
        """Send `request`; the exchange is under way when this returns."""
        handle = self._pool.pop() if self._pool else _Handle()
        exchange = Exchange(
            self._asyncio_loop, request, stop=lambda: self._stop(exchange), resume=lambda: self._resume(exchange)
        )
        handle.prepare(request, exchange)
        self._running[exchange] = handle
        self._multi.add_handle(handle.curl)
        handle.give_credit()  # not before: what was said of speed is forgotten when a handle is added
        return exchange

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
            handle.curl.close()
        self._pool.clear()
        for fd in list(self._fds):
            self._unwatch(fd)
        self._set_timeout(-1)
        super().close()

    # Tornado's own go through IOLoop's bookkeeping of handlers and timers, at a third of an exchange's cost.

    def _handle_socket(self, event: int, fd: int, multi: pycurl.CurlMulti, data: Any) -> None:
        # libcurl may open a socket under the number of one that it closed without a word: always begin anew.
        self._unwatch(fd)
        if event == pycurl.POLL_REMOVE:
            return
        self._fds[fd] = event
        if event & pycurl.POLL_IN:
            self._asyncio_loop.add_reader(fd, self._handle_events, fd, IOLoop.READ)
        if event & pycurl.POLL_OUT:
            self._asyncio_loop.add_writer(fd, self._handle_events, fd, IOLoop.WRITE)

    def _unwatch(self, fd: int) -> None:
        watched = self._fds.pop(fd, pycurl.POLL_NONE)
        if watched & pycurl.POLL_IN:
            self._asyncio_loop.remove_reader(fd)
        if watched & pycurl.POLL_OUT:
            self._asyncio_loop.remove_writer(fd)

    def _set_timeout(self, msecs: int) -> None:
        """Called by libcurl; -1 is for none, which Tornado takes for at once."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if msecs < 0 else self._asyncio_loop.call_later(msecs / 1000, self._handle_timeout)

    def _finish(self, curl: pycurl.Curl, curl_error: int | None = None, curl_message: str | None = None) -> None:
        exchange: Exchange = curl.handle.exchange  # type: ignore[attr-defined]  # set in _Handle
        handle = self._running.pop(exchange)
        self._multi.remove_handle(curl)
        error = None if curl_error is None else _upstream_error(curl, curl_error, curl_message or "")
        handle.release()
        if error is None and len(self._pool) < _POOL_SIZE:
            self._pool.append(handle)
        else:
            handle.curl.close()
        exchange.on_finished(error)

    def _stop(self, exchange: Exchange) -> None:
        handle = self._running.pop(exchange, None)
        if handle is None:
            return
        # Taking the handle out is the only way that works at once: an idle transfer runs no libcurl callback at all.
        self._multi.remove_handle(handle.curl)
        handle.release()
        handle.curl.close()

    def _resume(self, exchange: Exchange) -> None:
        handle = self._running.get(exchange)
        if handle is None:
            return
        # An error here: the transfer failed while it was paused; the multi handle reports it on its next turn.
        with contextlib.suppress(pycurl.error):
            handle.curl.pause(pycurl.PAUSE_CONT)
            handle.give_credit()  # not before: libcurl would forget that the transfer is paused, and never go on
        # Without a poke a resumed transfer waits for the next unrelated event.
        self._set_timeout(0)

    def _end_silent_exchanges(self) -> None:
        now = self._asyncio_loop.time()
        for exchange in [e for e in self._running if e.idle_since(now) > e.idle_timeout_s]:
            exchange.expire(UpstreamTimeout(f"the provider sent nothing for {exchange.idle_timeout_s:g} s"))
        self._sweep = self._asyncio_loop.call_later(_IDLE_SWEEP_S, self._end_silent_exchanges)


class _Handle:
    """An easy handle with the options that never change set once, and callbacks to the exchange it now serves."""

    __slots__ = ("_credited", "curl", "exchange", "payload")

    def __init__(self) -> None:
        self._credited = False
        self.exchange: Exchange | None = None
        self.payload: Payload | None = None
        curl = self.curl = pycurl.Curl()
        curl.handle = self  # type: ignore[attr-defined]  # the way back from a finished transfer
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        # Proxies named in the environment are not for us: what they answer to CONNECT would look like a head.
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        # HTTP/2 where TLS offers it.  Not PIPEWAIT: streams past a connection's limit would wait for a whole stream.
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header_line)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        curl.setopt(pycurl.READFUNCTION, self._read)
        curl.setopt(pycurl.SEEKFUNCTION, self._seek)

    def prepare(self, request: UpstreamRequest, exchange: Exchange) -> None:
        """Set what differs from one exchange to the next."""
        self.exchange = exchange
        curl = self.curl
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.HTTPHEADER, _header_lines(request))
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(request.connect_timeout_s * 1000))
        curl.setopt(pycurl.CAINFO, request.ca_file or certifi.where())
        if self._credited and not request.may_be_http2:
            curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, 0)
        self._credited = request.may_be_http2
        if request.method == "POST":
            self.payload = request.body or Payload(b"")
            curl.unsetopt(pycurl.CUSTOMREQUEST)
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.POSTFIELDSIZE_LARGE, self.payload.size)
            curl.setopt(pycurl.UPLOAD_BUFFERSIZE, _LARGE_SENDS if self.payload.size > _SMALL_SENDS else _SMALL_SENDS)
        else:
            curl.setopt(pycurl.HTTPGET, 1)
            curl.setopt(pycurl.CUSTOMREQUEST, request.method)

    def give_credit(self) -> None:
        """Let a transfer that may be HTTP/2 take CREDIT_BYTES, as upstream/exchange.py says."""
        if self._credited:
            self.curl.setopt(pycurl.MAX_RECV_SPEED_LARGE, CREDIT_BYTES)

    def release(self) -> None:
        """Let go of the exchange and of the request's body and key."""
        self.exchange = None
        self.payload = None
        self.curl.unsetopt(pycurl.HTTPHEADER)

    def _on_header_line(self, line: bytes) -> None:
        if self.exchange is not None:
            self.exchange.on_header_line(line)

    def _read(self, most: int) -> bytes:
        return b"" if self.payload is None else self.payload.read(most)

    def _seek(self, offset: int, origin: int) -> int:
        if self.payload is None or origin != os.SEEK_SET:
            return pycurl.SEEKFUNC_FAIL
        self.payload.rewind(offset)
        return pycurl.SEEKFUNC_OK

    def _on_body(self, data: bytes) -> int:
        if self.exchange is None or self.exchange.on_body(data):
            return len(data)
        return pycurl.WRITEFUNC_PAUSE


def _header_lines(request: UpstreamRequest) -> list[bytes]:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in request.headers]
    lines += [f"{name}: {secret.reveal()}".encode("latin-1") for name, secret in request.key_headers]
    named = {name.lower() for name, _ in request.headers}
    # What libcurl adds by itself and the client did not say: a name without a value takes it out.
    lines += [
        line
        for name, line in (
            ("expect", b"Expect:"),
            ("accept", b"Accept:"),
            ("user-agent", b"User-Agent:"),
            ("content-type", b"Content-Type:"),
        )
        if name not in named
    ]
    return lines


def _upstream_error(curl: pycurl.Curl, code: int, message: str) -> UpstreamError:
    connected = curl.getinfo(pycurl.PRETRANSFER_TIME) > 0
    sent = connected and code not in _NOTHING_SENT
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return UpstreamTimeout("the provider could not be reached in time", request_sent=sent)
    if sent:
        return UpstreamError(f"the connection to the provider broke: {message}")
    return UpstreamUnreachable(f"the provider could not be reached: {message}", request_sent=False)
