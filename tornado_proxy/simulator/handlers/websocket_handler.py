"""The base class of the WebSocket endpoints: one JSON event per message, paced by the same directives as streams.

Tornado reads the next message when `on_message` is done, so an event that arrives while a response is sent waits for
the end of the response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tornado_proxy.simulator.handlers.provider_errors import ConnectionClosed, ProviderError
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_object, decode, encode
from tornado_proxy.simulator.request_log import RecordedRequest

#: Bytes of the largest message from a client: OpenAI accepts 15 MiB of audio, which is 20 MiB in base64.
_MAX_MESSAGE_BYTES = 32 * 1024 * 1024


class ProviderWebSocketHandler(ProviderHandler, WebSocketHandler):
    """A WebSocket connection to OpenAI's API."""

    @property
    def max_message_size(self) -> int:
        """The size in bytes of the largest message that is read."""
        return _MAX_MESSAGE_BYTES

    def check_origin(self, origin: str) -> bool:
        """Return True: access depends on the credential, not on the origin."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Return `realtime` if the client offers it; the other subprotocols carry the key and are never confirmed."""
        return "realtime" if "realtime" in subprotocols else None

    async def open(self, *args: str, **kwargs: str) -> None:
        """Called when the WebSocket is open."""
        # As in ProviderHandler.prepare: small messages must not wait for delayed ACKs.
        self.set_nodelay(True)
        self.simulator.streams += 1

    def on_close(self) -> None:
        """Called when the WebSocket is closed."""
        self.simulator.streams -= 1

    async def on_message(self, message: str | bytes) -> None:
        """Called with each message: record it and handle its event, or send an `error` event if that fails."""
        body = message.encode() if isinstance(message, str) else message
        self.simulator.messages.add(RecordedRequest("MESSAGE", self.request.uri or "", (), body))
        try:
            event = as_object(decode(message))
        except ValueError:
            await self.send_error_event(ProviderError(400, "the frame must be a JSON object", code="invalid_json"))
            return
        try:
            await self.handle_event(event)
        except ProviderError as error:
            await self.send_error_event(error)
        # Without a connection no error can be sent; on_close counts the end.
        except (ConnectionClosed, WebSocketClosedError):
            return

    async def handle_event(self, event: Mapping[str, object]) -> None:
        """Handle a client event and send the events that follow from it.

        Raises:
            ProviderError: the event is invalid; the connection stays open.
        """
        raise NotImplementedError  # abstract: each WebSocket of the simulator defines it

    async def send_error_event(self, error: ProviderError) -> None:
        """Send `error` as the provider's `error` event."""
        members: Json = {"type": "invalid_request_error", "code": error.code, "message": error.message}
        event: Json = {"type": "error", "status": error.status_code, "error": {**members, "param": error.param}}
        await self.send_text(encode(event))

    async def send_text(self, data: bytes) -> None:
        """Send a text message."""
        await self.write_message(data)

    async def send_paced_events(self, events: Iterable[Event], failure: Iterable[Event]) -> None:
        """Send each event as a message, paced and cut by the directives; `error-event` ends them with `failure`."""
        directives = self.directives
        for count, (_, data) in enumerate(events):
            if count == directives.error_after:
                for _, failed in failure:
                    await self.send_text(failed)
                return
            if count == directives.cut_after:
                self._abort_websocket()
            await self.send_text(data)
            if directives.delay_ms:
                await self.pause(directives.delay_ms)

    def _abort_websocket(self) -> None:
        """Close the TCP connection without a close frame."""
        if self.ws_connection is not None:
            stream = self.ws_connection.stream
            assert stream is not None, "an open WebSocket has a stream"
            stream.close()
        raise ConnectionClosed
