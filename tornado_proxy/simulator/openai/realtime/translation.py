"""GET /v1/realtime/translations with an upgrade: each append of audio gets a transcript and a translation."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.websocket_handler import ProviderWebSocketHandler
from tornado_proxy.simulator.json_values import Json, as_object, encode
from tornado_proxy.simulator.openai.realtime.session import INPUT_AUDIO_BYTES_PER_S, decode_audio

#: The audio of translations has the format of realtime sessions.
_BYTES_PER_MS = INPUT_AUDIO_BYTES_PER_S // 1000


class TranslationWebSocket(ProviderWebSocketHandler):
    """A translation session."""

    async def open(self, *args: str, **kwargs: str) -> None:
        """Called when the WebSocket is open: send `session.created`."""
        await super().open(*args, **kwargs)
        model = self.get_query_argument("model", "gpt-realtime-translate")
        self._session: Json = {"id": self.simulator.new_id("sess_"), "type": "translation", "model": model}
        self._audio_bytes = 0
        await self._send_event("session.created", session=self._session)

    async def handle_event(self, event: Mapping[str, object]) -> None:
        """Handle a client event."""
        match event.get("type"):
            case "session.update":
                self._session.update(as_object(event.get("session")))
                await self._send_event("session.updated", session=self._session)
            case "session.input_audio_buffer.append":
                self._audio_bytes += len(decode_audio(event.get("audio")))
                elapsed_ms = self._audio_bytes // _BYTES_PER_MS
                await self._send_event("session.input_transcript.delta", delta="words ", elapsed_ms=elapsed_ms)
                await self._send_event("session.output_transcript.delta", delta="Worte ", elapsed_ms=elapsed_ms)
            case "session.close":
                await self._send_event("session.closed")
                self.close(1000)
            case other:
                raise ProviderError(400, f"Invalid value: {other!r}.", code="invalid_value", param="type")

    async def _send_event(self, kind: str, **members: object) -> None:
        await self.send_text(encode({"type": kind, "event_id": self.simulator.new_id("event_"), **members}))
