"""What the WebSocket endpoints share: one JSON event a frame, pace and directives as in streams.

Client frames are handled one after another, so an event that arrives while an answer is sent waits for its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tornado_proxy.simulator.handlers.provider_errors import ConnectionDone, ProviderFault
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_object, decode, encode

#: Largest frame from a client, bytes: the provider's 15 MiB of audio in base64, and room.
_MAX_FRAME_BYTES = 32 * 1024 * 1024


class SocketHandler(ProviderHandler, WebSocketHandler):
    """A WebSocket of OpenAI's API."""

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest frame that is read."""
        return _MAX_FRAME_BYTES

    def check_origin(self, origin: str) -> bool:
        """Browsers of any origin may come: the credential decides."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Of what browsers offer, which includes the key, only `realtime` is answered."""
        return "realtime" if "realtime" in subprotocols else None

    async def open(self, *args: str, **kwargs: str) -> None:
        """The connection stands."""
        self.set_nodelay(True)
        self.simulator.streams += 1

    def on_close(self) -> None:
        """The connection is gone."""
        self.simulator.streams -= 1

    async def on_message(self, message: str | bytes) -> None:
        """Read one event and answer it; what cannot be done is answered with an `error` event."""
        try:
            event = as_object(decode(message))
        except ValueError:
            await self.send_error_event(ProviderFault(400, "the frame must be a JSON object", code="invalid_json"))
            return
        try:
            await self.handle(event)
        except ProviderFault as fault:
            await self.send_error_event(fault)
        except (ConnectionDone, WebSocketClosedError):
            return

    async def handle(self, event: Mapping[str, object]) -> None:
        """Answer one client event.

        Raises:
            ProviderFault: it cannot be answered; the connection stays.
        """
        raise NotImplementedError  # each kind of session answers its own events

    async def send_error_event(self, fault: ProviderFault) -> None:
        """The provider's `error` event."""
        error: Json = {"type": "invalid_request_error", "code": fault.code, "message": fault.message}
        await self.send_frame(
            encode({"type": "error", "status": fault.status_code, "error": {**error, "param": fault.param}})
        )

    async def send_frame(self, data: bytes) -> None:
        """One text frame."""
        await self.write_message(data)

    async def send_paced_frames(self, events: Iterable[Event], failure: Iterable[Event]) -> None:
        """Send each event as a frame, at the pace and with the breaks that the directives ask for."""
        asked = self.directives
        for count, (_, data) in enumerate(events):
            if count == asked.error_after:
                for _, failing in failure:
                    await self.send_frame(failing)
                return
            if count == asked.cut_after:
                self._break_socket()
            await self.send_frame(data)
            if asked.delay_ms:
                await self.pause(asked.delay_ms)

    def _break_socket(self) -> None:
        """End the TCP connection without a closing frame."""
        if self.ws_connection is not None:
            stream = self.ws_connection.stream
            assert stream is not None, "an open socket has its stream"
            stream.close()
        raise ConnectionDone
