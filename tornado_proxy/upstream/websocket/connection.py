"""A WebSocket to a provider: Tornado's client, with our words for what goes wrong.

Pressure is felt in both directions: Tornado reads the next message from the socket when the one before has been
handled, and send() says when the socket has not taken a message yet.
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
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketError, websocket_connect

from tornado_proxy import tasks
from tornado_proxy.domain.errors import UpgradeRejected, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.websocket.frame_sender import FrameSender, Wait

#: Close codes that a frame may carry (RFC 6455 section 7.4): 1004 to 1006 and 1015 never go over the wire.
_UNSENDABLE = frozenset({1004, 1005, 1006, 1015})


@dataclass(frozen=True, slots=True)
class WebSocketRequest:
    """What is connected to.  `url` is complete, http(s); sizes in bytes, times in seconds."""

    url: str
    headers: tuple[tuple[str, str], ...]
    key_headers: tuple[tuple[str, Secret], ...]
    subprotocols: tuple[str, ...]
    max_message_bytes: int
    connect_timeout_s: float
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """How the provider closed: a code that can be sent on, and its reason; `broken` without a word of its own."""

    code: int
    reason: str
    broken: bool = False


#: What is done with a message; the next one is read when what it gives has been awaited.
Handle = Callable[[str | bytes], Wait | None]


class UpstreamWebSocket:
    """A connection that stands.  listen() once; send() and close() may come at any time.

    Every wait ends by the provider, by close(), or with the connection.
    """

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self._frames = FrameSender(connection.protocol)
        self._handle: Handle = _drop
        self._handling: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def headers(self) -> HTTPHeaders:
        """The headers of the provider's 101."""
        headers = self._connection.headers
        assert headers is not None, "it stands"
        return headers

    @property
    def subprotocol(self) -> str | None:
        """What the provider selected of the subprotocols that were offered."""
        return self._connection.selected_subprotocol

    async def listen(self, handle: Handle) -> Closed:
        """Have `handle` called with each message, text or binary, until the connection has ended; gives how it did.

        Tornado's read_message() costs a queue and two changes of task for each message.
        """
        waiting = self._connection.read_queue
        while not waiting.empty():
            message = waiting.get_nowait()
            if message is None:
                return self._closed()
            handled = handle(message)
            if handled is not None:
                await handled
        self._handle = handle
        self._connection._on_message = self._on_message  # type: ignore[method-assign]  # in place of its queue
        try:
            await self._ended
            if self._handling is not None:
                await asyncio.wait({self._handling})
        finally:
            self._connection._on_message = _drop  # type: ignore[method-assign]
            self._handle = _drop
            self._frames.detach()
        return self._closed()

    def _on_message(self, message: str | bytes | None) -> asyncio.Future[None] | None:
        if message is None:
            if not self._ended.done():
                self._ended.set_result(None)
            return None
        handled = self._handle(message)
        if handled is None:
            return None
        self._handling = tasks.spawn(handled, "message of a provider")
        return self._handling

    def _closed(self) -> Closed:
        code = self._connection.close_code
        if code is None or code == 1006:
            return Closed(1011, "the connection to the provider broke", broken=True)
        return Closed(1000 if code in _UNSENDABLE else code, self._connection.close_reason or "")

    def send(self, message: str | bytes) -> Wait | None:
        """Send a message; where the socket has not taken it yet, what is given waits for that.

        Raises:
            UpstreamError: the connection is gone.
        """
        try:
            return self._frames.send(message)
        except StreamClosedError as error:
            raise UpstreamError("the connection to the provider is closed") from error

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye; no effect on a connection that has ended."""
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            self._connection.close(None if code in _UNSENDABLE else code, reason[:120] or None)


def _connected() -> asyncio.Future[WebSocketClientConnection]:
    """A future that is done, in place of the one that holds the connection, which holds the future."""
    done: asyncio.Future[WebSocketClientConnection] = asyncio.get_running_loop().create_future()
    done.cancel()
    return done


def _drop(message: str | bytes | None) -> None:
    """Nobody listens any more."""


async def connect(request: WebSocketRequest) -> UpstreamWebSocket:
    """Connect, verify and upgrade.

    Raises:
        UpgradeRejected: the provider answered with an HTTP error.
        UpstreamTimeout: it did not answer in time.
        UpstreamUnreachable: there is no connection to it.
    """
    headers = HTTPHeaders()
    for name, value in (*request.headers, *((name, secret.reveal()) for name, secret in request.key_headers)):
        headers.add(name, value)
    opening = HTTPRequest(
        "ws" + request.url.removeprefix("http"),
        headers=headers,
        connect_timeout=request.connect_timeout_s,
        request_timeout=request.connect_timeout_s,
        ca_certs=request.ca_file or certifi.where(),
    )
    offered = list(request.subprotocols) or None
    try:
        connection = await websocket_connect(opening, max_message_size=request.max_message_bytes, subprotocols=offered)
    except HTTPTimeoutError as error:
        raise UpstreamTimeout("the provider could not be reached in time", request_sent=False) from error
    except HTTPClientError as error:
        answer = error.response
        body = answer.body if answer is not None else b""
        media_type = answer.headers.get("Content-Type", "") if answer is not None else ""
        raise UpgradeRejected(error.code, body, media_type) from error
    except ssl.SSLError as error:
        raise UpstreamUnreachable(f"the provider could not be reached: {error.reason}", request_sent=False) from error
    except (OSError, StreamClosedError, WebSocketError, asyncio.InvalidStateError) as error:
        raise UpstreamUnreachable(f"the provider could not be reached: {error}", request_sent=False) from error
    connection.protocol.stream.set_nodelay(True)  # type: ignore[union-attr]  # it stands
    connection.connect_future = _connected()
    return UpstreamWebSocket(connection)
