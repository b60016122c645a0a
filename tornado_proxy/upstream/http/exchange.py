"""One HTTP exchange with a provider: a request out, a head and body chunks in.

Theory of operation.  libcurl runs every transfer on one multi handle that Tornado's loop drives; its callbacks land
here.  What a turn of the loop delivers is collected and handed on as one piece:

    libcurl ── header lines ──> head()           resolves once, at the final (non-1xx) head
            ── body bytes ───> _held ──> read()  all that is there, in one piece
                                 │
                 HIGH_WATER_BYTES┘ held: the transfer is paused, and the provider's socket fills up;
                                   it goes on when read() has taken what was held

Over HTTP/2 many streams share a socket, which must not fill up for one of them: there, what a provider may send ahead
is its stream's flow-control window (RFC 9113 section 5.2).  libcurl opens it to 10 MB and holds all of that for a
stream that is paused; only a limit on speed keeps it small.  So a transfer over TLS may take CREDIT_BYTES a second, and
a new second is begun whenever read() has taken half of that: no reader ever waits for the limit.

An exchange ends in exactly one of three ways: read() gives b"" (complete), it raises UpstreamError (broken), or
abort() was called, which takes the transfer out of libcurl at once, even while the provider is silent.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

import pycurl

from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.upstream.http.request import UpstreamRequest
from tornado_proxy.upstream.http.response_head import UpstreamResponseHead, parse_response_head

#: Bytes held for a slow client before the transfer is paused.  A last piece of at most 16 KiB comes on top; as much may
#: wait in the client's connection, and libcurl keeps the rest of what it has read, up to 64 KiB (CREDIT_BYTES over
#: HTTP/2).  All in all a client that does not read costs less than 256 KiB.
HIGH_WATER_BYTES = 64 * 1024

#: Bytes that a provider may send ahead on a stream of HTTP/2, which libcurl holds beside those above.  A path of 30 ms
#: there and back carries 3 MB/s with it.
CREDIT_BYTES = 96 * 1024

_LINE_ENDS = (b"\r\n", b"\n")


class Transfers(Protocol):
    """What runs the transfers of exchanges."""

    def stop(self, exchange: Exchange) -> bool:
        """Take its transfer out of libcurl and close its connection; whether any byte of the request had left."""

    def resume(self, exchange: Exchange) -> None:
        """Let its transfer take more."""


class Exchange:
    """A running exchange.  `await head()`, then `await read()` until it gives b"".

    Every wait ends by the provider, by the connect and idle time-outs of the request, or by abort().
    """

    __slots__ = (
        "_error",
        "_finished",
        "_head",
        "_header_lines",
        "_held",
        "_held_bytes",
        "_loop",
        "_paused",
        "_payload",
        "_resume_after",
        "_taken",
        "_transfers",
        "_waiter",
        "active_at",
        "idle_timeout_s",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: UpstreamRequest,
        transfers: Transfers,
    ) -> None:
        self._loop = loop
        self._transfers = transfers
        self._payload = request.body
        self._header_lines: list[bytes] = []
        self._head: UpstreamResponseHead | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._paused = False
        # Bytes taken since libcurl was last told to go on.  The first ones make it due, because libcurl fits its limit
        # to the length that a head names, so that the last hundredth of a short body would wait.
        self._taken = CREDIT_BYTES
        self._resume_after = CREDIT_BYTES // 2 if request.may_be_http2 else sys.maxsize
        self._finished = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_timeout_s = request.idle_timeout_s
        #: Loop time since which nothing has come, for the idle time-out; a paused transfer is not idle.
        self.active_at = loop.time()

    async def head(self) -> UpstreamResponseHead:
        """Wait for the final status line and headers.

        Raises:
            UpstreamError: the exchange ended before a complete head.
        """
        while self._head is None:
            if self._finished:
                raise self._error or UpstreamUnreachable("the provider closed the connection without an answer")
            await self._wait()
        return self._head

    async def read(self) -> bytes:
        """The body bytes that have come since the last call, at least one; b"" when the body is complete.

        Raises:
            UpstreamError: the body broke off; what had come before was given out first.
        """
        while not self._held:
            if self._finished:
                if self._error is not None:
                    raise self._error
                return b""
            await self._wait()
        held = self._held
        data = held[0] if len(held) == 1 else b"".join(held)
        self._held = []
        self._held_bytes = 0
        self._taken += len(data)
        self.active_at = self._loop.time()
        self._go_on()
        return data

    @property
    def finished(self) -> bool:
        """Whether libcurl is done with the transfer; held bytes may still wait to be read."""
        return self._finished

    @property
    def complete(self) -> bool:
        """Whether the answer has come whole and read() has given all of it."""
        return self._finished and self._error is None and not self._held

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for read()."""
        return self._held_bytes

    def abort(self, reason: str) -> None:
        """End the transfer now and close its connection; read() then raises.  No effect when it has finished."""
        if not self._finished:
            self.on_finished(ExchangeAborted(reason, request_sent=self._transfers.stop(self)))
        elif self._error is not None:
            self._error.__traceback__ = None  # its frames hold this exchange, which holds the error

    def expire(self, message: str) -> None:
        """End the transfer because the provider took too long; head() or read() then raises UpstreamTimeout."""
        self.on_finished(UpstreamTimeout(message, request_sent=self._transfers.stop(self)))

    def idle_since(self, now: float) -> float:
        """Seconds without a sign of life from the provider, 0 while we hold it back ourselves."""
        return 0.0 if self._paused or self._held else now - self.active_at

    # The callbacks of libcurl.  They never raise and never call back into libcurl.

    def on_header_line(self, line: bytes) -> None:
        """Take one header line with its line end; an empty one ends a head, of which 1xx heads are passed over."""
        if line not in _LINE_ENDS:
            self._header_lines.append(line)
        elif self._head is None:
            self._on_head(parse_response_head(self._header_lines))
            self._header_lines = []

    def on_body(self, data: bytes) -> int | None:
        """Take body bytes.  WRITEFUNC_PAUSE: hold the transfer and offer the same bytes again after a resume."""
        if self._held_bytes >= HIGH_WATER_BYTES:
            self._paused = True
            return pycurl.WRITEFUNC_PAUSE
        if not self._held:
            self._wake()
        self._held.append(data)
        self._held_bytes += len(data)
        return None

    def on_finished(self, error: UpstreamError | None) -> None:
        """The transfer has ended; `error` is None when the answer is complete."""
        self._finished = True
        self._error = error
        self._wake()

    def _on_head(self, head: UpstreamResponseHead | None) -> None:
        if head is None or head.status < 200:
            return
        self._head = head
        if self._payload is not None:
            self._payload.drop()
        self.active_at = self._loop.time()
        self._wake()

    def _go_on(self) -> None:
        """Let libcurl take more, where it is held back or may soon be."""
        if self._paused:
            self._paused = False
        elif self._taken < self._resume_after:
            return
        self._taken = 0
        self._transfers.resume(self)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
