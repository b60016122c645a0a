"""GET /v1/realtime with an upgrade: the events of a realtime session (general availability, not beta).

    session.update -> session.updated                conversation.item.create -> item.added, item.done
    input_audio_buffer.append ... commit -> committed, item.added, item.done, transcription events if enabled
    response.create -> response.created, item and part added, deltas, done ..., response.done, rate_limits.updated

Voice activity detection is not simulated: the client has to commit its audio.

Several connections can attach to a realtime call as its sideband.  The first one owns the session; the others, and the
data channel of a call with media, get a copy of each of its messages, and their events are handled as if the first had
sent them.
"""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from tornado.websocket import WebSocketClosedError

from tornado_proxy.simulator.handlers.provider_errors import ConnectionClosed, ProviderError
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.handlers.websocket_handler import ProviderWebSocketHandler
from tornado_proxy.simulator.json_values import Json, as_object, as_text, encode
from tornado_proxy.simulator.model.output import ModelOutput, plan_output, split_arguments
from tornado_proxy.simulator.object_stores import RealtimeCall
from tornado_proxy.simulator.openai.realtime.session import (
    RealtimeSession,
    count_input_audio_seconds,
    count_input_audio_tokens,
    decode_audio,
    make_speech_audio,
)

#: Every transcription of input audio; its tokens are counted like any other text.
_TRANSCRIPT = "Simulated words that were heard."
_TRANSCRIPT_TOKENS = 6


class RealtimeWebSocket(ProviderWebSocketHandler):
    """A realtime session."""

    _listeners: Sequence[Callable[[bytes], Awaitable[None]]] = ()

    async def open(self, *args: str, **kwargs: str) -> None:
        """Called when the WebSocket is open: send `session.created`; attach to the realtime call of `call_id`."""
        await super().open(*args, **kwargs)
        call = self._find_call()
        settings = call.session if call is not None else self.simulator.session_keys.get(self.find_credential())
        default_model = as_text((settings or {}).get("model")) or "gpt-realtime"
        # The query has precedence over the settings of the key or of the realtime call.
        model = self.get_query_argument("model", default_model)
        self._session = RealtimeSession(self.simulator.new_id("sess_"), model)
        self._session.update(settings or {})
        created = self._make_event("session.created", session=self._session.session_json())[1]
        await self.send_text(created)
        if call is not None:
            call.on_end.append(lambda: self.close(1000, "the call has ended"))
            await self._attach(call, created)

    def prepare(self) -> None:
        """Check `call_id` before the upgrade.

        Raises:
            ProviderError: 404, the realtime call does not exist.
        """
        super().prepare()
        if self.get_query_argument("call_id", "") and self._find_call() is None:
            raise ProviderError(404, "No call found.", code="call_id_not_found")

    def _find_call(self) -> RealtimeCall | None:
        return self.simulator.realtime_calls.get(self.get_query_argument("call_id", ""))

    async def _attach(self, call: RealtimeCall, created: bytes) -> None:
        if call.handle is not None:
            call.listeners.append(self._copy_text)
            return
        call.handle, call.created = self._handle_as_owner, created
        self._listeners = call.listeners
        if self.simulator.answer_call is not None:
            return  # the peer speaks for itself
        # open() runs outside on_message, so a client that disconnects during the response must be caught here.
        with contextlib.suppress(ConnectionClosed, WebSocketClosedError):
            await self._greet()

    async def _copy_text(self, data: bytes) -> None:
        # The other connections of a realtime call must not end with one that is closed.
        with contextlib.suppress(WebSocketClosedError):
            await self.write_message(data)

    async def send_text(self, data: bytes) -> None:
        """Send a text message, and a copy to the other connections of the realtime call."""
        await super().send_text(data)
        for send_copy in self._listeners:
            await send_copy(data)

    def on_close(self) -> None:
        """Called when the WebSocket is closed: give up the session of the realtime call."""
        super().on_close()
        call = self._find_call()
        if call is not None and call.handle == self._handle_as_owner:
            call.handle = None

    async def _greet(self) -> None:
        """Send a response to the session's instructions, as if the caller had spoken them."""
        part: Json = {"type": "input_text", "text": as_text(self._session.settings.get("instructions")) or "Hello"}
        await self._add_item({"type": "message", "role": "user", "content": [part]})
        await self._respond({})

    async def handle_event(self, event: Mapping[str, object]) -> None:
        """Handle a client event, through the owner of the session if this connection is not it."""
        call = self._find_call()
        await (self._handle_as_owner if call is None or call.handle is None else call.handle)(event)

    async def _handle_as_owner(self, event: Mapping[str, object]) -> None:
        match event.get("type"):
            case "session.update":
                self._session.update(as_object(event.get("session")))
                await self._send_event("session.updated", session=self._session.session_json())
            case "conversation.item.create":
                await self._add_item(dict(as_object(event.get("item"))))
            case "input_audio_buffer.append":
                self._session.buffer += decode_audio(event.get("audio"))
            case "input_audio_buffer.clear":
                self._session.buffer.clear()
                await self._send_event("input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                await self._commit()
            case "response.create":
                await self._respond(as_object(event.get("response")))
            # Events are handled one after another, so no response is ever active when this one is read.
            case "response.cancel":
                message = "Cancellation failed: no active response found"
                raise ProviderError(400, message, code="response_cancel_not_active")
            case other:
                raise ProviderError(400, f"Invalid value: {other!r}.", code="invalid_value", param="type")

    def _make_event(self, kind: str, **members: object) -> Event:
        return kind, encode({"type": kind, "event_id": self.simulator.new_id("event_"), **members})

    async def _send_event(self, kind: str, **members: object) -> None:
        await self.send_text(self._make_event(kind, **members)[1])

    async def _add_item(self, item: Json) -> Json:
        previous = self._session.items[-1]["id"] if self._session.items else None
        item = {"id": self.simulator.new_id("item_"), "status": "completed", **item}
        self._session.items.append(item)
        await self._send_event("conversation.item.added", previous_item_id=previous, item=item)
        await self._send_event("conversation.item.done", previous_item_id=previous, item=item)
        return item

    async def _commit(self) -> None:
        session = self._session
        if not session.buffer:
            message = "Error committing input audio buffer: buffer too small."
            raise ProviderError(400, message, code="input_audio_buffer_commit_empty")
        length, model = len(session.buffer), session.transcription_model
        audio = b64encode(session.buffer).decode()
        session.buffer.clear()
        item_id = self.simulator.new_id("item_")
        await self._send_event("input_audio_buffer.committed", previous_item_id=None, item_id=item_id)
        part: Json = {"type": "input_audio", "audio": audio, "transcript": None}
        await self._add_item({"id": item_id, "type": "message", "role": "user", "content": [part]})
        if model:
            await self._transcribe(item_id, model, length)

    async def _transcribe(self, item_id: str, model: str, length: int) -> None:
        kind = "conversation.item.input_audio_transcription"
        position: Json = {"item_id": item_id, "content_index": 0}
        await self._send_event(f"{kind}.delta", **position, delta=_TRANSCRIPT)
        audio_tokens = count_input_audio_tokens(length)
        usage: Json = {
            "type": "tokens",
            "total_tokens": audio_tokens + _TRANSCRIPT_TOKENS,
            "input_tokens": audio_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio_tokens},
            "output_tokens": _TRANSCRIPT_TOKENS,
        }
        if "whisper" in model:
            usage = {"type": "duration", "seconds": count_input_audio_seconds(length)}
        await self._send_event(f"{kind}.completed", **position, transcript=_TRANSCRIPT, usage=usage)

    async def _respond(self, request: Mapping[str, object]) -> None:
        session = self._session
        text, tools_answered = session.find_user_text()
        directives = await self.apply_directives(text, tools_answered=tools_answered)
        output = plan_output(directives, credential=self.find_credential())
        spoken = session.is_spoken(request)
        usage = None if directives.no_usage else session.usage_json(output, spoken=spoken)
        response: Json = {
            "object": "realtime.response",
            "id": self.simulator.new_id("resp_"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": "conv_" + session.id.removeprefix("sess_"),
            "output_modalities": ["audio"] if spoken else ["text"],
            "max_output_tokens": "inf",
            "usage": None,
            "metadata": request.get("metadata"),
        }
        items = self._make_items(output, spoken=spoken)
        # A failed response states no usage, although the input was read.
        failed: Json = {**response, "status": "failed", "usage": None}
        failure = [self._make_event("response.done", response=failed)]
        await self.send_paced_events(self._make_response_events(response, items, output, usage), failure)
        # Only now: the output of a response that was cut is not part of the conversation.
        session.items += items

    def _make_items(self, output: ModelOutput, *, spoken: bool) -> list[Json]:
        items: list[Json] = []
        if output.pieces:
            text = output.text
            part: Json = {"type": "output_text", "text": text}
            if spoken:
                part = {"type": "output_audio", "transcript": text}
            message: Json = {"id": self.simulator.new_id("item_"), "type": "message", "status": "completed"}
            items.append({**message, "role": "assistant", "content": [part]})
        for call in output.tool_calls:
            item: Json = {"id": self.simulator.new_id("item_"), "type": "function_call", "status": "completed"}
            members: Json = {"call_id": self.simulator.new_id("call_"), "name": call.name, "arguments": call.arguments}
            items.append({**item, **members})
        return items

    def _make_response_events(
        self, response: Json, items: list[Json], output: ModelOutput, usage: Json | None
    ) -> Iterator[Event]:
        yield self._make_event("response.created", response=response)
        for index, item in enumerate(items):
            position: Json = {"response_id": response["id"], "output_index": index}
            empty: Json = {"content": []} if "content" in item else {"arguments": ""}
            opened: Json = {**item, "status": "in_progress", **empty}
            yield self._make_event("response.output_item.added", **position, item=opened)
            yield self._make_event("conversation.item.added", previous_item_id=None, item=opened)
            item_position: Json = {**position, "item_id": item["id"]}
            if "content" in item:
                yield from self._make_message_events({**item_position, "content_index": 0}, response, output)
            else:
                yield from self._make_call_events({**item_position, "call_id": item["call_id"]}, item)
            yield self._make_event("conversation.item.done", previous_item_id=None, item=item)
            yield self._make_event("response.output_item.done", **position, item=item)
        done = {**response, "status": "completed", "output": items, "usage": usage}
        yield self._make_event("response.done", response=done)
        limit: Json = {"name": "tokens", "limit": 15_000_000, "remaining": 14_999_000, "reset_seconds": 0.004}
        yield self._make_event("rate_limits.updated", rate_limits=[limit])

    def _make_message_events(self, position: Json, response: Json, output: ModelOutput) -> Iterator[Event]:
        spoken = response["output_modalities"] == ["audio"]
        key, kind = ("transcript", "response.output_audio_transcript") if spoken else ("text", "response.output_text")
        part = "audio" if spoken else "text"
        yield self._make_event("response.content_part.added", **position, part={"type": part, key: ""})
        for piece in output.pieces:
            yield self._make_event(f"{kind}.delta", **position, delta=piece)
        if spoken:
            yield self._make_event(
                "response.output_audio.delta", **position, delta=make_speech_audio(output.text_tokens)
            )
            yield self._make_event("response.output_audio.done", **position)
        yield self._make_event(f"{kind}.done", **position, **{key: output.text})
        yield self._make_event("response.content_part.done", **position, part={"type": part, key: output.text})

    def _make_call_events(self, position: Json, item: Json) -> Iterator[Event]:
        arguments = as_text(item["arguments"])
        for piece in split_arguments(arguments):
            yield self._make_event("response.function_call_arguments.delta", **position, delta=piece)
        yield self._make_event(
            "response.function_call_arguments.done", **position, name=item["name"], arguments=arguments
        )
