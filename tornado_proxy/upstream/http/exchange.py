"""One HTTP exchange with a provider: a request, and the head and body chunks of its response.

Theory of operation.  libcurl runs all transfers on one multi handle, which Tornado's loop drives, and calls back into
this module.  The bytes that arrive in one turn of the loop are collected and read as one piece:

    libcurl ── header lines ──> head()           returns once, with the final (non-1xx) head
            ── body bytes ───> _held ──> read()  returns all held bytes as one piece
                                 │
                 HIGH_WATER_BYTES┘ held: the transfer is paused, and the provider's socket fills up;
                                   it resumes when read() has taken the held bytes

libcurl calls on_body() for each chunk of a chunked body and each DATA frame: 170 times for a read of 57 KB with an
event in each chunk.  A transfer is therefore also paused at MAX_HELD_PIECES.  libcurl then collects the rest of its
read, and passes it in pieces of 16 KiB when the transfer resumes, which read() does first.

Over HTTP/2, many streams share a socket, which must not fill up because of one of them.  A provider may send as much
ahead as the stream's flow-control window allows (RFC 9113 section 5.2).  libcurl opens the window to 10 MB and holds
all of that for a paused stream; only a speed limit keeps it small.  So a transfer over TLS may receive CREDIT_BYTES per
second, and the credit is renewed whenever read() has taken half of it: no reader ever waits for the speed limit.

An exchange ends in exactly one of three ways: read() returns b"" (complete), read() raises UpstreamError (broken), or
abort() takes the transfer out of libcurl at once, even while the provider is silent.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

import pycurl

from tornado_proxy.domain.errors import ExchangeAborted, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.upstream.http.messages import UpstreamRequest, UpstreamResponseHead, parse_response_head
from tornado_proxy.upstream.http.streamed_payload import StreamedPayload

#: Bytes held for a slow client before the transfer is paused.  One last piece of at most 16 KiB is added; as much may
#: wait in the client's connection, and libcurl holds the rest of its read, at most 64 KiB (CREDIT_BYTES over HTTP/2).
#: In total, a client that reads nothing costs less than 256 KiB.
HIGH_WATER_BYTES = 64 * 1024

#: Pieces held before the transfer is paused.  A pause costs as much as some 20 calls of on_body(); most streams that
#: are relayed as they are generated have fewer pieces in a turn of the loop.
MAX_HELD_PIECES = 8

#: Bytes that a provider may send ahead on an HTTP/2 stream; libcurl holds them in addition to HIGH_WATER_BYTES.  With
#: an RTT of 30 ms this allows 3 MB/s.
CREDIT_BYTES = 96 * 1024


#: Statuses from which on a response is an error.
_MIN_ERROR_STATUS = 400


class Transfers(Protocol):
    """Runs the transfers of exchanges (upstream/http/client.py)."""

    def stop(self, exchange: Exchange) -> bool:
        """Take the transfer out of libcurl and close its connection.  Return True if any request byte was sent."""

    def resume(self, exchange: Exchange) -> None:
        """Resume the transfer if it is paused, and renew its credit."""


class Exchange:
    """A running exchange: `await head()`, then `await read()` until it returns b"".

    Every wait ends by the provider, by the request's connect or idle timeout, or by abort().
    """

    __slots__ = (
        "_error",
        "_head",
        "_held",
        "_loop",
        "_paused",
        "_payload",
        "_resume_after_bytes",
        "_taken_bytes",
        "_transfers",
        "_unread_heads",
        "_waiter",
        "active_at",
        "finished",
        "held_bytes",
        "idle_timeout_s",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: UpstreamRequest,
        transfers: Transfers,
        *,
        may_be_http2: bool,
    ) -> None:
        self._loop = loop
        self._transfers = transfers
        self._payload = request.body
        if isinstance(request.body, StreamedPayload):
            request.body.attach(self._resume_upload, loop.time)
        #: The lines of heads that head() has not parsed; None after the final head: further lines are trailers.
        self._unread_heads: list[list[bytes]] | None = []
        #: The head until read() is called: a stream can last for hours, and its reader has seen the head.
        self._head: UpstreamResponseHead | None = None
        self._held: list[bytes] = []
        #: The number of bytes that have arrived and not been read.
        self.held_bytes = 0
        self._paused = False
        # Bytes read since the credit was last renewed.  It starts at CREDIT_BYTES, so that the first read() renews the
        # credit: libcurl fits its speed limit to the Content-Length of a response, and without a renewal the last
        # hundredth of a short body would wait for 0.2 s.
        self._taken_bytes = CREDIT_BYTES
        self._resume_after_bytes = CREDIT_BYTES // 2 if may_be_http2 else sys.maxsize
        #: True if libcurl has ended the transfer; held bytes may still be unread.
        self.finished = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_timeout_s = request.idle_timeout_s
        #: Loop time of the last sign of life, for the idle timeout; a paused transfer is not idle.
        self.active_at = loop.time()

    async def head(self) -> UpstreamResponseHead:
        """Wait for the final status line and headers, and return them.  Call it before read().

        Raises:
            UpstreamError: the exchange ended before a complete head.
        """
        while self._head is None:
            if self._unread_heads:
                self._parse_head(self._unread_heads.pop(0))
            elif self.finished:
                raise self._error or UpstreamUnreachable("the provider closed the connection without a response")
            else:
                await self._wait()
        return self._head

    async def read(self) -> bytes:
        """Return the body bytes that have arrived since the last call, at least one; b"" when the body is complete.

        Raises:
            UpstreamError: the body is incomplete; all bytes that arrived have been returned before.
        """
        self._head = None
        while not self._held:
            if self.finished:
                if self._error is not None:
                    raise self._error
                return b""
            await self._wait()
        if self._paused and self.held_bytes < HIGH_WATER_BYTES:
            self._take_rest()
        held = self._held
        data = held[0] if len(held) == 1 else b"".join(held)
        self._held = []
        self.held_bytes = 0
        self._taken_bytes += len(data)
        self.active_at = self._loop.time()
        if self._paused or self._taken_bytes >= self._resume_after_bytes:
            self._resume_transfer()
        return data

    @property
    def complete(self) -> bool:
        """True if the response is complete and read() has returned all of it."""
        return self.finished and self._error is None and not self._held

    def abort(self, reason: str) -> None:
        """End the transfer now and close its connection; read() then raises.  No effect if it has finished."""
        if not self.finished:
            self.on_finished(ExchangeAborted(reason, request_sent=self._transfers.stop(self)))
        elif self._error is not None:
            # The traceback's frames hold this exchange and it holds the error: break the cycle to free it now.
            self._error.__traceback__ = None

    def expire(self, message: str) -> None:
        """End the transfer because the provider took too long; head() or read() then raises UpstreamTimeout."""
        self.on_finished(UpstreamTimeout(message, request_sent=self._transfers.stop(self)))

    def idle_s(self, now: float) -> float:
        """Return the seconds without a sign of life from the provider, or 0 while we hold it back ourselves."""
        payload = self._payload
        if payload is not None and payload.is_waiting:
            return 0.0
        # A response that comes before the end of its request is not read until that has been sent.
        if (self._paused or self._held) and not (payload is not None and payload.is_withheld):
            return 0.0
        return now - (self.active_at if payload is None else max(self.active_at, payload.read_at))

    # Callbacks of libcurl.  They never raise, and never call back into libcurl, which is not reentrant.

    def on_header_lines(self, lines: list[bytes]) -> None:
        """Receive the lines of a head, or of the trailers, with their line ends."""
        if self._unread_heads is not None:
            self._unread_heads.append(lines)
            if self._payload is not None and self._payload.is_withheld:
                self._loop.call_soon(self._parse_early_heads)
            self._wake()

    def on_body(self, data: bytes) -> int | None:
        """Receive body bytes.  Return WRITEFUNC_PAUSE to pause; libcurl passes the same bytes again after a resume."""
        if self.held_bytes >= HIGH_WATER_BYTES or len(self._held) >= MAX_HELD_PIECES:
            self._paused = True
            return pycurl.WRITEFUNC_PAUSE
        if self._waiter is not None:
            self._wake()
        self._held.append(data)
        self.held_bytes += len(data)
        return None

    def on_finished(self, error: UpstreamError | None) -> None:
        """Record the end of the transfer; `error` is None if the response is complete."""
        self.finished = True
        self._error = error
        if self._payload is not None:
            self._drop_payload()
        if self._waiter is not None:
            self._wake()

    def _parse_head(self, lines: list[bytes]) -> None:
        """Take the head, unless it is a 1xx head; end the transfer if it is not valid."""
        head = parse_response_head(lines)
        fault = "its status line is not valid" if head is None else _find_framing_fault(head)
        if fault is not None:
            self._reject(f"the provider sent a response that is not HTTP: {fault}")
        elif head is not None and head.status >= 200:
            self._head, self._unread_heads = head, None
            # A provider that accepts a request before it has all of it gets the rest; one that rejects it does not.
            if self._payload is not None and (head.status >= _MIN_ERROR_STATUS or not self._payload.is_withheld):
                self._drop_payload()
            self.active_at = self._loop.time()

    def _parse_early_heads(self) -> None:
        """Parse heads that come before the provider has the whole request: nothing awaits head() then."""
        while self._unread_heads:
            self._parse_head(self._unread_heads.pop(0))

    def _drop_payload(self) -> None:
        payload, self._payload = self._payload, None
        if payload is not None:
            payload.drop()

    def _resume_upload(self) -> None:
        """Let libcurl read bytes of the request that have arrived."""
        self._transfers.resume(self)

    def _reject(self, message: str) -> None:
        self._unread_heads = None
        if not self.finished:
            self.on_finished(UpstreamUnreachable(message, request_sent=self._transfers.stop(self)))
        elif self._error is None:
            self._error = UpstreamUnreachable(message)

    def _take_rest(self) -> None:
        """Let libcurl pass the rest of a read; its calls of on_body() come before this returns."""
        self._held = [b"".join(self._held)]
        self._resume_transfer()

    def _resume_transfer(self) -> None:
        """Resume a paused transfer, and renew the credit of one that has used half of it."""
        self._paused = False
        self._taken_bytes = 0
        self._transfers.resume(self)

    def _wait(self) -> asyncio.Future[None]:
        """Return a future that _wake() ends.  Not a coroutine, whose frame each open stream would hold."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _find_framing_fault(head: UpstreamResponseHead) -> str | None:
    """Return the fault of the headers that delimit the body, None if they are valid.

    With two lengths, two programs can see two bodies (RFC 9112 section 6.3); libcurl picks one.
    """
    length = head.fields.get("content-length")
    if length is None:
        return None
    if head.fields.get("transfer-encoding") is not None:
        return "it has both Content-Length and Transfer-Encoding"
    repeated = len(head.fields) < len(head.headers)
    if repeated and {value for name, value in head.headers if name.lower() == "content-length"} != {length}:
        return "it has Content-Length headers that differ"
    return None
