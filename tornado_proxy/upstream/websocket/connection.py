"""A WebSocket to a provider: connects, upgrades, and reports errors of this project.

Back-pressure works in both directions: the next message is handled when the handler of the previous one is done, and
send() returns a coroutine to await while the socket is full.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast
from urllib.parse import urlsplit

from tornado.iostream import StreamClosedError

from tornado_proxy.domain.errors import UpgradeRejected, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.address_guard import AddressRefused
from tornado_proxy.upstream.websocket.dialing import find_tls_context, open_socket
from tornado_proxy.upstream.websocket.frames import MESSAGE_TOO_BIG
from tornado_proxy.upstream.websocket.message_protocol import UNSENDABLE_CODES, MessageProtocol, Wait
from tornado_proxy.upstream.websocket.upgrade import (
    InvalidUpgrade,
    UpgradeReader,
    UpgradeResponse,
    make_upgrade_request,
)

_SWITCHING_PROTOCOLS = 101

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


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


class UpstreamWebSocket(MessageProtocol):
    """An open WebSocket.  Call listen() once; send() and close() at any time.

    Every wait ends by the provider, by close(), or with the connection.
    """

    __slots__ = ("_ended", "_handler", "_started", "headers", "subprotocol")

    def __init__(self, max_message_bytes: int, response: UpgradeResponse) -> None:
        super().__init__(mask_outgoing=True, max_message_bytes=max_message_bytes)
        #: The headers of the provider's 101 response, with names in lower case; none after listen() has begun.
        self.headers: Mapping[str, str] = response.headers
        #: The offered subprotocol that the provider selected, or None.
        self.subprotocol = response.headers.get("sec-websocket-protocol")
        self._handler: MessageHandler = _ignore_message
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._started = False

    async def listen(self, handler: MessageHandler) -> Closed:
        """Call `handler` with each message, text (str) or binary (bytes), until the connection closes.

        Return how it closed.
        """
        self.headers = _NO_HEADERS
        self._handler = handler
        self._read_messages()
        try:
            await self._ended
        finally:
            self._handler = _ignore_message  # it refers to the relay, which refers to this: break the cycle
        return self._make_closed()

    def on_message(self, message: str | bytes) -> Wait | None:
        """Handle a message of the provider."""
        return self._handler(message)

    def on_end(self) -> None:
        """Called when the connection has ended and the last message has been handled."""
        if not self._ended.done():
            self._ended.set_result(None)

    def send(self, message: str | bytes) -> Wait | None:
        """Send a message.  Return None if the socket has taken it, else a coroutine that waits until it has.

        Raises:
            UpstreamError: the connection is closed or closing.
        """
        try:
            return super().send(message)
        except StreamClosedError as error:
            raise UpstreamError("the connection to the provider is closed") from error

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame; no effect on a closed connection."""
        self.start_close(code, reason)
        self._read_messages()  # the provider's close frame is behind them

    def _read_messages(self) -> None:
        if not self._started:
            self._started = True
            self.start()

    def _make_closed(self) -> Closed:
        code = self.close_code
        if code is None and self.fault is not None and self.fault.code == MESSAGE_TOO_BIG:
            return Closed(MESSAGE_TOO_BIG, "the provider's message is too large", broken=True)
        if code is None or code == 1006:
            return Closed(1011, "the connection to the provider broke", broken=True)
        return Closed(1000 if code in UNSENDABLE_CODES else code, self.close_reason or "")


def _ignore_message(message: str | bytes) -> None:
    """Ignore a message that arrives before listen() has begun or after it has ended."""


async def connect(request: WebSocketRequest) -> UpstreamWebSocket:
    """Connect, verify the certificate and upgrade; return the open WebSocket.

    Raises:
        UpgradeRejected: the provider responded with an HTTP error.
        UpstreamTimeout: the provider did not respond within `connect_timeout_s`.
        UpstreamUnreachable: no connection, an invalid certificate, or an invalid response.
    """
    limit = asyncio.timeout(request.connect_timeout_s)
    try:
        async with limit:
            return await _open(request)
    except TimeoutError as error:  # also that of a connection attempt
        if limit.expired():
            raise UpstreamTimeout("the provider could not be reached in time", request_sent=False) from error
        raise _make_unreachable(f"the provider could not be reached: {error}") from error
    except AddressRefused as error:
        raise _make_unreachable(str(error)) from error
    except ssl.SSLError as error:
        raise _make_unreachable(f"the provider could not be reached: {error.reason}") from error
    except InvalidUpgrade as error:
        raise _make_unreachable(f"the provider's response to the upgrade is not valid: {error}") from error
    except OSError as error:
        raise _make_unreachable(f"the provider could not be reached: {error}") from error


def _make_unreachable(message: str) -> UpstreamUnreachable:
    return UpstreamUnreachable(message, request_sent=False)


async def _open(request: WebSocketRequest) -> UpstreamWebSocket:
    parts = urlsplit(request.url)
    host = parts.hostname or ""
    tls = find_tls_context(request.ca_file) if parts.scheme == "https" else None
    key = base64.b64encode(os.urandom(16)).decode()
    headers = (*request.headers, *((name, secret.reveal()) for name, secret in request.key_headers))
    head = make_upgrade_request(request.url, headers, request.subprotocols, key)
    connection = await open_socket(host, parts.port or (443 if tls else 80), public_only=request.public_only)
    transport, handshake = await asyncio.get_running_loop().create_connection(
        lambda: _Handshake(head, key, request.max_message_bytes),
        sock=connection,
        ssl=tls,
        server_hostname=host if tls else None,
    )
    try:
        return await handshake.opened
    except BaseException:
        transport.abort()
        del handshake  # it has the error, whose traceback has this frame: break the cycle
        raise


class _Handshake(asyncio.Protocol):
    """Sends the request to upgrade, `head`, with the key `key`.  `opened` gets the WebSocket, or the error."""

    def __init__(self, head: bytes, key: str, max_message_bytes: int) -> None:
        self.opened: asyncio.Future[UpstreamWebSocket] = asyncio.get_running_loop().create_future()
        self._head = head
        self._key = key
        self._max_message_bytes = max_message_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # A cast, because uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        reader = self._reader = UpgradeReader(self._key)
        self.opened.add_done_callback(lambda _: reader.close())
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Parse the response."""
        if self.opened.done():
            return
        try:
            response = self._reader.feed(data)
        except InvalidUpgrade as error:
            self._fail(error)
            return
        if response is not None:
            self._on_response(response)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a response without a length, or report the error."""
        if self.opened.done():
            return
        if exc is not None:
            self._fail(exc)
            return
        try:
            self._on_response(self._reader.end())
        except InvalidUpgrade as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.opened.set_exception(error.with_traceback(None))  # its frames have this object: break the cycle

    def _on_response(self, response: UpgradeResponse) -> None:
        if response.status == _SWITCHING_PROTOCOLS:
            opened = UpstreamWebSocket(self._max_message_bytes, response)
            opened.attach(self._transport, response.rest)
            self.opened.set_result(opened)
        elif response.status < 300:
            self.opened.set_exception(InvalidUpgrade(f"status {response.status} without an upgrade"))
        else:
            self.opened.set_exception(_make_rejection(response))


def _make_rejection(response: UpgradeResponse) -> UpgradeRejected:
    headers = response.headers
    rejection = UpgradeRejected(
        response.status, response.body, headers.get("content-type", ""), headers.get("retry-after")
    )
    rejection.challenge = headers.get("www-authenticate")
    return rejection
