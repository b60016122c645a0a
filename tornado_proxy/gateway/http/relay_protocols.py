"""The client's side of a relay and the recording of its request, as far as the relay knows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.metering.request_meter import RequestEnd
from tornado_proxy.upstream.http.messages import UpstreamResponseHead


class Client(Protocol):
    """The client's side of a relay.  `send` and `finish_response` raise StreamClosedError if the client has left."""

    @property
    def delivered(self) -> bool:
        """True if the client's socket has taken the whole response."""

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the response head, which leaves with the first bytes."""

    def send(self, data: bytes) -> Awaitable[None]:
        """Write `data`; the result is done when the socket has taken it."""

    def finish_response(self, data: bytes) -> Awaitable[None]:
        """Write the last bytes and end the response; the result is done when the socket has taken them."""

    def cut(self) -> None:
        """Break the connection, so that the response cannot look complete."""

    async def reject(self, error: UpstreamError) -> None:
        """Send an error response in the provider's format; no byte of a response has been sent."""


class RelayHooks(Protocol):
    """The recording of a relay's request, as the relay calls it (gateway/recorder.py)."""

    @property
    def response_received(self) -> Callable[[UpstreamResponseHead], Awaitable[None]] | None:
        """Awaited before the client sees the head of a 2xx response; None for most requests.

        It may raise UpstreamError to replace the response by that error.
        """

    def object_created(self, object_id: str, /) -> None:
        """Called with the id of the object that the request created, as soon as the response names it."""

    def before_last_byte(self, end: RequestEnd, /) -> None:
        """Called with the expected end of the request before a complete response leaves whole.

        So a client never holds a response whose record can still be lost.  It must not raise.  run() returns the end as
        it was.
        """
