"""GET /v1/realtime/translations with an upgrade: what is appended comes back translated, with the time passed."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.handlers.provider_errors import ProviderFault
from tornado_proxy.simulator.handlers.websocket_handler import SocketHandler
from tornado_proxy.simulator.json_values import Json, as_object, encode
from tornado_proxy.simulator.openai.realtime.session import decoded_length

#: Input audio: 16 bit at 24 kHz, mono.
_BYTES_PER_MS = 48


class TranslationSocket(SocketHandler):
    """One translation session."""

    async def open(self, *args: str, **kwargs: str) -> None:
        """Greet with `session.created`."""
        await super().open(*args, **kwargs)
        model = self.get_query_argument("model", "gpt-realtime-translate")
        self._session: Json = {"id": self.simulator.new_id("sess_"), "type": "translation", "model": model}
        self._heard_bytes = 0
        await self._say("session.created", session=self._session)

    async def handle(self, event: Mapping[str, object]) -> None:
        """Answer one client event."""
        match event.get("type"):
            case "session.update":
                self._session.update(as_object(event.get("session")))
                await self._say("session.updated", session=self._session)
            case "session.input_audio_buffer.append":
                self._heard_bytes += decoded_length(event.get("audio"))
                elapsed_ms = self._heard_bytes // _BYTES_PER_MS
                await self._say("session.input_transcript.delta", delta="words ", elapsed_ms=elapsed_ms)
                await self._say("session.output_transcript.delta", delta="Worte ", elapsed_ms=elapsed_ms)
            case "session.close":
                await self._say("session.closed")
                self.close(1000)
            case other:
                raise ProviderFault(400, f"Invalid value: {other!r}.", code="invalid_value", param="type")

    async def _say(self, kind: str, **members: object) -> None:
        await self.send_frame(encode({"type": kind, "event_id": self.simulator.new_id("event_"), **members}))
