"""A WebSocket to a provider: Tornado's client, with this project's errors.

Back-pressure works in both directions.  Tornado reads the next message from the socket only when the handler of the
previous one is done, and send() returns a coroutine to await while the socket is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import certifi
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketError

from tornado_proxy.domain.errors import UpgradeRejected, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.address_guard import AddressRefused, PublicResolver
from tornado_proxy.upstream.websocket.client import ProviderConnection, drop_handshake, open_connection
from tornado_proxy.upstream.websocket.frames import MESSAGE_TOO_BIG
from tornado_proxy.upstream.websocket.message_protocol import MessageProtocol, Wait
from tornado_proxy.wire.close_reason import cut_close_reason

#: Close codes that must not be sent in a frame (RFC 6455 section 7.4); 1004 is reserved without a meaning.
_UNSENDABLE_CODES = frozenset({1004, 1005, 1006, 1015})


@dataclass(frozen=True, slots=True)
class WebSocketRequest:
    """A WebSocket to open.

    Attributes:
        url: Complete URL, http or https.
        headers: Headers without secrets.
        key_headers: Headers with the provider key; never logged.
        subprotocols: Offered subprotocols, the preferred one first; may be empty.
        max_message_bytes: A longer message from the provider closes the connection.
        connect_timeout_s: Seconds for connect, TLS handshake and upgrade together.
        ca_file: PEM file of the trusted authorities; None for certifi's.
        public_only: True if the URL may lead to public addresses only.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    key_headers: tuple[tuple[str, Secret], ...]
    subprotocols: tuple[str, ...]
    max_message_bytes: int
    connect_timeout_s: float
    ca_file: str | None = None
    public_only: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection closed: a code that can be relayed, and the reason; `broken` if no close frame was received."""

    code: int
    reason: str
    broken: bool = False


#: Handles one message.  The next message is read after the returned coroutine, if any, is done.
MessageHandler = Callable[[str | bytes], Wait | None]


class UpstreamWebSocket:
    """An open WebSocket.  Call listen() once; send() and close() at any time.

    Every wait ends by the provider, by close(), or with the connection.
    """

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        assert isinstance(connection.protocol, MessageProtocol)
        self._frames = connection.protocol
        self._closed_event: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def headers(self) -> HTTPHeaders:
        """The headers of the provider's 101 response."""
        headers = self._connection.headers
        assert headers is not None, "websocket_connect() returns after the 101 response"
        return headers

    @property
    def subprotocol(self) -> str | None:
        """The offered subprotocol that the provider selected, or None."""
        return self._connection.selected_subprotocol

    async def listen(self, handler: MessageHandler) -> Closed:
        """Call `handler` with each message, text (str) or binary (bytes), until the connection closes.

        Return how it closed.

        Not read_message(), which costs a queue entry and two task switches per message; and not Tornado's
        on_message_callback, which has no back-pressure (measured: it relayed 50 MiB to a client that read nothing).
        """
        # Messages that arrived before this call are in Tornado's queue, and the handler must see them first.
        queued = self._connection.read_queue
        while not queued.empty():
            message = queued.get_nowait()
            if message is None:
                return self._make_closed()
            wait = handler(message)
            if wait is not None:
                await wait
        del queued, self._connection.read_queue  # three deques of 0.7 KB
        self._connection.on_message = handler  # type: ignore[method-assign, assignment]  # instead of the queue
        self._connection._on_message = self._on_close  # type: ignore[method-assign, assignment]
        try:
            await self._closed_event
        finally:
            # Drop the references between connection, handler and this object, so that no cycle outlives the session.
            self._connection.on_message = _ignore_message  # type: ignore[method-assign]
            self._connection._on_message = _ignore_message  # type: ignore[method-assign]
            self._frames.detach()
        return self._make_closed()

    def _on_close(self, message: None) -> None:
        """Called by Tornado when the connection has closed and the last message has been handled."""
        if not self._closed_event.done():
            self._closed_event.set_result(None)

    def _make_closed(self) -> Closed:
        code = self._connection.close_code
        if code is None and isinstance(self._connection, ProviderConnection) and self._connection.message_too_big:
            return Closed(MESSAGE_TOO_BIG, "the provider's message is too large", broken=True)
        if code is None or code == 1006:
            return Closed(1011, "the connection to the provider broke", broken=True)
        return Closed(1000 if code in _UNSENDABLE_CODES else code, self._connection.close_reason or "")

    def send(self, message: str | bytes) -> Wait | None:
        """Send a message.  Return None if the socket has taken it, else a coroutine that waits until it has.

        Raises:
            UpstreamError: the connection is closed or closing.
        """
        try:
            return self._frames.send(message)
        except StreamClosedError as error:
            raise UpstreamError("the connection to the provider is closed") from error

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame; no effect on a closed connection."""
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            code_to_send = None if code in _UNSENDABLE_CODES else code
            self._connection.close(code_to_send, cut_close_reason(reason) or None)


def _make_done_future() -> asyncio.Future[WebSocketClientConnection]:
    future: asyncio.Future[WebSocketClientConnection] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


def _ignore_message(message: str | bytes | None) -> None:
    """Ignore a message that arrives after listen() has ended."""


async def connect(request: WebSocketRequest) -> UpstreamWebSocket:
    """Connect, verify the certificate and upgrade; return the open WebSocket.

    Raises:
        UpgradeRejected: the provider responded with an HTTP error.
        UpstreamTimeout: the provider did not respond within `connect_timeout_s`.
        UpstreamUnreachable: no connection, an invalid certificate, or an invalid response.
    """
    subprotocols = list(request.subprotocols) or None
    resolver = PublicResolver() if request.public_only else None
    try:
        connection = await open_connection(_make_upgrade(request), request.max_message_bytes, subprotocols, resolver)
    except HTTPTimeoutError as error:
        raise UpstreamTimeout("the provider could not be reached in time", request_sent=False) from error
    except HTTPStreamClosedError as error:  # the provider has closed, or its response is not valid
        raise UpstreamUnreachable(
            "the provider closed the connection without a valid response to the upgrade", request_sent=False
        ) from error
    except HTTPClientError as error:
        response = error.response
        body = response.body if response is not None else b""
        headers = response.headers if response is not None else HTTPHeaders()
        media_type, retry_after = headers.get("Content-Type", ""), headers.get("Retry-After")
        rejection = UpgradeRejected(error.code, body, media_type, retry_after)
        rejection.challenge = headers.get("WWW-Authenticate")
        raise rejection from error
    except AddressRefused as error:
        raise UpstreamUnreachable(str(error), request_sent=False) from error
    except ssl.SSLError as error:
        raise UpstreamUnreachable(f"the provider could not be reached: {error.reason}", request_sent=False) from error
    # InvalidStateError: if the connection closes during the upgrade, Tornado may set its connect future a second time.
    except (OSError, StreamClosedError, WebSocketError, asyncio.InvalidStateError) as error:
        raise UpstreamUnreachable(f"the provider could not be reached: {error}", request_sent=False) from error
    # Nagle holds small messages for the peer's delayed ACK.  HTTP1Connection turns it on after a request.
    connection.protocol.stream.set_nodelay(True)  # type: ignore[union-attr]  # None only before the upgrade
    # The original future's result is the connection, and the connection holds the future: break that cycle.
    connection.connect_future = _make_done_future()
    drop_handshake(connection)
    return UpstreamWebSocket(connection)


def _make_upgrade(request: WebSocketRequest) -> HTTPRequest:
    headers = HTTPHeaders()
    for name, value in (*request.headers, *((name, secret.reveal()) for name, secret in request.key_headers)):
        headers.add(name, value)
    return HTTPRequest(
        "ws" + request.url.removeprefix("http"),
        headers=headers,
        connect_timeout=request.connect_timeout_s,
        request_timeout=request.connect_timeout_s,
        ca_certs=request.ca_file or certifi.where(),
    )
