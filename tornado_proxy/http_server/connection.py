"""A client's HTTP/1.1 connection: serves one request after another.

    bytes ──> RequestParser ──> receiver.headers_received ──> body ──> receiver.finish ──> (response) ──> next request
                   │                                           │
                   └── malformed ──────────────────────────────┴──> 400 in the provider's format, then close

Parsing runs ahead of the responses by a piece of a read: while requests wait for the response to an earlier one,
nothing is parsed and nothing is read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from tornado.httputil import HTTPInputError

from tornado_proxy import tasks
from tornado_proxy.http_server.body_protocol import MIN_MISSING_BYTES, BodyOwner, BodyProtocol
from tornado_proxy.http_server.client_transport import ClientTransport, ConnectionContext
from tornado_proxy.http_server.exchange import Exchange, FindReceiver
from tornado_proxy.http_server.idle_connections import IdleConnections
from tornado_proxy.http_server.request_parser import MIN_PIECE_BYTES, Fault, RequestParser, describe
from tornado_proxy.http_server.upgraded_connection import UpgradedConnection

_log = logging.getLogger(__name__)

#: Bytes after a request to upgrade that are kept until the server has answered it.
_MAX_HELD_BYTES = 64 * 1024

#: Not TLS, so a TLS library reports a wrong version and drops it; curl, openssl s_client and packet captures show it.
_TLS_RESPONSE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks plain HTTP, and the client sent TLS; use http:// or ws://, or put a TLS terminator in front\n"
)

#: Makes the response to a request that is not served, head and body.
MakeRejection = Callable[[Fault], bytes]


#: Takes the place of the parser of a connection whose response streams, or that is a WebSocket: a parser holds 1.5 KB.
#: It never gets a byte.
_NO_PARSER = RequestParser()


class ConnectionOwner(Protocol):
    """The server, as its connections see it."""

    @property
    def application(self) -> FindReceiver:
        """Routes the requests."""

    @property
    def make_rejection(self) -> MakeRejection:
        """Makes the response to a request that is not served."""

    def on_open(self, connection: ClientConnection | UpgradedConnection) -> None:
        """Called when a connection has opened."""

    @property
    def idle_connections(self) -> IdleConnections:
        """The connections that wait for a request."""

    def on_waiting(self, connection: ClientConnection) -> None:
        """Called when a connection is ready for its first request."""

    def on_ending(self, connection: ClientConnection) -> None:
        """Called when a connection will take no more requests."""

    def on_close(self, connection: ClientConnection | UpgradedConnection) -> None:
        """Called when a connection has closed."""


class ClientConnection(BodyOwner):
    """The protocol of one connection.

    Args:
        server: The server.
        connection: The socket.
        context: What requests know of the connection.
    """

    def __init__(self, server: ConnectionOwner, connection: socket.socket, context: ConnectionContext) -> None:
        self._server = server
        self._socket: socket.socket | None = connection
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._parser = RequestParser()
        #: Bytes that have arrived and not been parsed, because requests before them wait.
        self._unparsed = b""
        self._exchange: Exchange | None = None
        #: True until the first response is complete.
        self.new = True

    @property
    def head_begun(self) -> bool:
        """True if bytes of the next request head have arrived."""
        return self._parser.head_begun

    def close(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        # A cast, because uvloop's transports are not subclasses of asyncio's.
        self._transport = ClientTransport(cast(asyncio.Transport, transport), self._socket, self._context)
        self._socket = None
        self._transport.limit_writes()
        self._server.on_open(self)
        self._server.on_waiting(self)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the client and pass the completed parts on."""
        if not self._transport.closed:
            self._unparsed = self._unparsed + data if self._unparsed else data
            self._parse()

    def body_received(self) -> None:
        """Finish a body; its last bytes are in its memory already."""
        if not self._transport.closed:
            self._advance()

    def eof_received(self) -> None:
        """Close: a client that has shut down its side has left."""
        if not self._transport.lingering:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Let writes wait."""
        self._transport.pause()

    def resume_writing(self) -> None:
        """Let writes continue."""
        self._transport.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler that the client has left."""
        self._transport.lose()
        self._drop_exchange()
        self._server.on_close(self)
        if self._parser is not _NO_PARSER:
            self._parser.close()

    # One request after another.

    def _parse(self) -> None:
        """Parse the bytes that have arrived, until a request waits for the response to an earlier one."""
        if self._parser is _NO_PARSER:
            self._parser = RequestParser()
        parser = self._parser
        while self._unparsed and not parser.requests and not self._transport.closed:
            piece, self._unparsed = self._unparsed, b""
            if len(piece) > MIN_PIECE_BYTES:
                size = parser.piece_bytes
                piece, self._unparsed = piece[:size], piece[size:]
            parser.feed(piece)
            self._advance()
        if self._unparsed:
            self._transport.pause_reading()
        elif parser.counting and self._exchange is not None and parser.counted_bytes >= MIN_MISSING_BYTES:
            self._read_into_memory(self._exchange)

    def _read_into_memory(self, exchange: Exchange) -> None:
        """Read the rest of the body in progress into the memory of its receiver, if it has some."""
        # uvloop reads TLS into memory of its own first.
        if self._context.protocol == "http" and exchange.find_memory() is not None:
            self._transport.set_protocol(BodyProtocol(self, self._transport, self._parser, exchange))

    def _advance(self) -> None:
        """Pass on all that has been parsed and that is due."""
        try:
            self._pass_on()
        except HTTPInputError as error:
            self._reject(Fault(self._exchange.incoming.target if self._exchange else "/", describe(error)))
        except Exception:  # noqa: BLE001  # the connection is the last place that can close it
            _log.error("connection failed", exc_info=True)
            self._transport.abort()

    def _pass_on(self) -> None:
        parser, exchange = self._parser, self._exchange
        if exchange is None:
            if not parser.requests:
                if parser.fault is not None:
                    self._reject(parser.fault)
                return
            exchange = self._begin_exchange()
        if not exchange.preparing:
            exchange.deliver()
            if parser.fault is not None and not exchange.incoming.complete:
                self._reject(parser.fault)
        if parser.requests or exchange.preparing or parser.held is not None:
            self._limit_reading(exchange)

    def _begin_exchange(self) -> Exchange:
        waiting = self._server.idle_connections
        waiting.idle_since.pop(self, None)
        waiting.head_since.pop(self, None)
        exchange = self._exchange = Exchange(self._transport, self._parser.requests.pop(0), self)
        prepared = exchange.begin(self._server.application)
        if prepared is None:
            if not exchange.incoming.complete:
                exchange.request_body()
        else:
            exchange.preparing = True
            tasks.spawn(self._wait_for(prepared, exchange), "prepare")
        return exchange

    async def _wait_for(self, prepared: Awaitable[None], exchange: Exchange) -> None:
        try:
            await prepared
        except BaseException:
            self._transport.abort()
            raise
        exchange.preparing = False
        if self._exchange is exchange and not self._transport.closed:
            exchange.request_body()
            self._transport.resume_reading()
            self._advance()

    def _limit_reading(self, exchange: Exchange) -> None:
        """Stop reading while arrived bytes cannot be passed on."""
        held = self._parser.held
        if (
            self._parser.requests
            or (exchange.preparing and exchange.incoming.body)
            or (held is not None and len(held) > _MAX_HELD_BYTES)
        ):
            self._transport.pause_reading()

    def end_exchange(self, exchange: Exchange) -> None:
        """Called when a response is complete: take the next request."""
        if exchange is not self._exchange or self._transport.closed:
            return
        if not exchange.received or not exchange.incoming.keep_alive:
            # Closing is the only way not to read the rest of a body, which its handler does not want.
            self._drop_exchange()
            self._close_lingering()
            return
        self._exchange = None
        self.new = False
        self._server.idle_connections.idle_since[self] = self._loop.time()
        parser = self._parser
        if parser.requests or self._unparsed or parser.fault is not None or parser.held is not None:
            # Not at once: pipelined requests must not keep other connections waiting.
            self._loop.call_soon(self._take_next)
        else:
            self._transport.resume_reading()

    def rest(self) -> None:
        """Called when a response without a length begins."""
        if self._parser.between_requests and not self._unparsed:
            self._parser.close()
            self._parser = _NO_PARSER

    def upgrade(self) -> UpgradedConnection:
        """Hand the connection over to another protocol, with the bytes that have arrived behind the request."""
        self._exchange = None
        data = self._parser.take_held() + self._unparsed
        self._unparsed = b""
        self._parser.close()
        self._parser = _NO_PARSER
        self._server.on_close(self)
        return UpgradedConnection(self._server, self._transport.release(), data)

    def _take_next(self) -> None:
        if self._transport.closed:
            return
        if self._parser.held is not None and not self._parser.requests:
            self._unparsed = self._parser.take_held() + self._unparsed
        self._transport.resume_reading()
        self._advance()
        self._parse()

    def _reject(self, fault: Fault) -> None:
        """Send the response to a malformed request and close; only close if a response has begun."""
        if self._exchange is not None and self._exchange.response_begun:
            self._transport.abort()
            return
        if fault.is_tls:
            _log.warning("TLS on the plain port: connection closed", extra={"client": self._context.remote_ip})
            self._transport.write(_TLS_RESPONSE)
        else:
            self._transport.write(self._server.make_rejection(fault))
        self._drop_exchange()
        self._close_lingering()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()

    def _close_lingering(self) -> None:
        self._server.on_ending(self)
        self._transport.close_lingering()
