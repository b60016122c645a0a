"""GET /v1/realtime with an upgrade: the general-availability events of a realtime conversation.

    session.update -> session.updated                conversation.item.create -> item.added, item.done
    input_audio_buffer.append ... commit -> committed, item.added, item.done, transcription events if asked for
    response.create -> response.created, item and part added, deltas, done ..., response.done, rate_limits.updated

Voice activity detection is not simulated: audio is committed by the client.
"""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from tornado.websocket import WebSocketClosedError

from tornado_proxy.simulator.handlers.provider_errors import ConnectionDone, ProviderFault
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.handlers.websocket_handler import SocketHandler
from tornado_proxy.simulator.json_values import Json, as_object, as_text, encode
from tornado_proxy.simulator.model.output import Answer, argument_pieces, plan_answer
from tornado_proxy.simulator.object_stores import Call
from tornado_proxy.simulator.openai.realtime.session import (
    RealtimeSession,
    decode_audio,
    heard_seconds,
    heard_tokens,
    spoken_audio,
)

_TRANSCRIPT = "Simulated words that were heard."
_TRANSCRIPT_TOKENS = 6


class RealtimeSocket(SocketHandler):
    """One realtime session."""

    _heard_by: Sequence[Callable[[bytes], Awaitable[None]]] = ()

    async def open(self, *args: str, **kwargs: str) -> None:
        """Greet with `session.created`."""
        await super().open(*args, **kwargs)
        call = self._call()
        asked = call.session if call is not None else self.simulator.session_keys.get(self.credential())
        named = as_text((asked or {}).get("model")) or "gpt-realtime"
        model = self.get_query_argument("model", named)
        self._session = RealtimeSession(self.simulator.new_id("sess_"), model)
        self._session.update(asked or {})
        await self._say("session.created", session=self._session.session_json())
        if call is not None:
            call.on_end.append(lambda: self.close(1000, "the call has ended"))
            await self._join(call)

    def prepare(self) -> None:
        """Refuse a call that is not known, before the upgrade."""
        super().prepare()
        if self.get_query_argument("call_id", "") and self._call() is None:
            raise ProviderFault(404, "No call found.", code="call_id_not_found")

    def _call(self) -> Call | None:
        return self.simulator.calls.get(self.get_query_argument("call_id", ""))

    async def _join(self, call: Call) -> None:
        """The first to listen answers the call; whoever comes later hears the same, and speaks through the first."""
        if call.handle is not None:
            call.listeners.append(self._hear)
            return
        call.handle = self._lead
        self._heard_by = call.listeners
        with contextlib.suppress(ConnectionDone, WebSocketClosedError):
            await self._answer_call()

    async def _hear(self, data: bytes) -> None:
        with contextlib.suppress(WebSocketClosedError):
            await self.write_message(data)

    async def send_frame(self, data: bytes) -> None:
        """One text frame, to all who listen."""
        await super().send_frame(data)
        for hear in self._heard_by:
            await hear(data)

    def on_close(self) -> None:
        """The connection is gone."""
        super().on_close()
        call = self._call()
        if call is not None and call.handle == self._lead:
            call.handle = None

    async def _answer_call(self) -> None:
        """What the caller is told: a spoken answer to the session's instructions."""
        said: Json = {"type": "input_text", "text": as_text(self._session.settings.get("instructions")) or "Hello"}
        await self._add_item({"type": "message", "role": "user", "content": [said]})
        await self._respond({})

    async def handle(self, event: Mapping[str, object]) -> None:
        """Answer one client event."""
        call = self._call()
        await (self._lead if call is None or call.handle is None else call.handle)(event)

    async def _lead(self, event: Mapping[str, object]) -> None:
        match event.get("type"):
            case "session.update":
                self._session.update(as_object(event.get("session")))
                await self._say("session.updated", session=self._session.session_json())
            case "conversation.item.create":
                await self._add_item(dict(as_object(event.get("item"))))
            case "input_audio_buffer.append":
                self._session.buffer += decode_audio(event.get("audio"))
            case "input_audio_buffer.clear":
                self._session.buffer.clear()
                await self._say("input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                await self._commit()
            case "response.create":
                await self._respond(as_object(event.get("response")))
            case "response.cancel":
                message = "Cancellation failed: no active response found"
                raise ProviderFault(400, message, code="response_cancel_not_active")
            case other:
                raise ProviderFault(400, f"Invalid value: {other!r}.", code="invalid_value", param="type")

    def _event(self, kind: str, **members: object) -> Event:
        return kind, encode({"type": kind, "event_id": self.simulator.new_id("event_"), **members})

    async def _say(self, kind: str, **members: object) -> None:
        await self.send_frame(self._event(kind, **members)[1])

    async def _add_item(self, item: Json) -> Json:
        previous = self._session.items[-1]["id"] if self._session.items else None
        item = {"id": self.simulator.new_id("item_"), "status": "completed", **item}
        self._session.items.append(item)
        await self._say("conversation.item.added", previous_item_id=previous, item=item)
        await self._say("conversation.item.done", previous_item_id=previous, item=item)
        return item

    async def _commit(self) -> None:
        session = self._session
        if not session.buffer:
            message = "Error committing input audio buffer: buffer too small."
            raise ProviderFault(400, message, code="input_audio_buffer_commit_empty")
        length, model = len(session.buffer), session.transcription_model
        audio = b64encode(session.buffer).decode()
        session.buffer.clear()
        item_id = self.simulator.new_id("item_")
        await self._say("input_audio_buffer.committed", previous_item_id=None, item_id=item_id)
        part: Json = {"type": "input_audio", "audio": audio, "transcript": None}
        await self._add_item({"id": item_id, "type": "message", "role": "user", "content": [part]})
        if model:
            await self._transcribe(item_id, model, length)

    async def _transcribe(self, item_id: str, model: str, length: int) -> None:
        kind = "conversation.item.input_audio_transcription"
        place: Json = {"item_id": item_id, "content_index": 0}
        await self._say(f"{kind}.delta", **place, delta=_TRANSCRIPT)
        heard = heard_tokens(length)
        usage: Json = {
            "type": "tokens",
            "total_tokens": heard + _TRANSCRIPT_TOKENS,
            "input_tokens": heard,
            "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
            "output_tokens": _TRANSCRIPT_TOKENS,
        }
        if "whisper" in model:
            usage = {"type": "duration", "seconds": heard_seconds(length)}
        await self._say(f"{kind}.completed", **place, transcript=_TRANSCRIPT, usage=usage)

    async def _respond(self, asked: Mapping[str, object]) -> None:
        session = self._session
        text, answered = session.last_user_text()
        directives = await self.obey(text, answering=not answered)
        answer = plan_answer(directives, secret=self.credential())
        spoken = session.speaks(asked)
        usage = None if directives.no_usage else session.usage_json(answer, spoken=spoken)
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
            "metadata": asked.get("metadata"),
        }
        items = self._items(answer, spoken=spoken)
        failed: Json = {**response, "status": "failed", "usage": None}
        failing = [self._event("response.done", response=failed)]
        await self.send_paced_frames(self._response_events(response, items, answer, usage), failing)
        session.items += items

    def _items(self, answer: Answer, *, spoken: bool) -> list[Json]:
        items: list[Json] = []
        if answer.pieces:
            text = answer.text
            part: Json = {"type": "output_text", "text": text}
            if spoken:
                part = {"type": "output_audio", "transcript": text}
            message: Json = {"id": self.simulator.new_id("item_"), "type": "message", "status": "completed"}
            items.append({**message, "role": "assistant", "content": [part]})
        for call in answer.calls:
            made: Json = {"id": self.simulator.new_id("item_"), "type": "function_call", "status": "completed"}
            called: Json = {"call_id": self.simulator.new_id("call_"), "name": call.name, "arguments": call.arguments}
            items.append({**made, **called})
        return items

    def _response_events(
        self, response: Json, items: list[Json], answer: Answer, usage: Json | None
    ) -> Iterator[Event]:
        yield self._event("response.created", response=response)
        for index, item in enumerate(items):
            place: Json = {"response_id": response["id"], "output_index": index}
            unfilled: Json = {"content": []} if "content" in item else {"arguments": ""}
            opened: Json = {**item, "status": "in_progress", **unfilled}
            yield self._event("response.output_item.added", **place, item=opened)
            yield self._event("conversation.item.added", previous_item_id=None, item=opened)
            inside: Json = {**place, "item_id": item["id"]}
            if "content" in item:
                yield from self._message_events({**inside, "content_index": 0}, response, answer)
            else:
                yield from self._call_events({**inside, "call_id": item["call_id"]}, item)
            yield self._event("conversation.item.done", previous_item_id=None, item=item)
            yield self._event("response.output_item.done", **place, item=item)
        done = {**response, "status": "completed", "output": items, "usage": usage}
        yield self._event("response.done", response=done)
        limit: Json = {"name": "tokens", "limit": 15_000_000, "remaining": 14_999_000, "reset_seconds": 0.004}
        yield self._event("rate_limits.updated", rate_limits=[limit])

    def _message_events(self, place: Json, response: Json, answer: Answer) -> Iterator[Event]:
        spoken = response["output_modalities"] == ["audio"]
        key, kind = ("transcript", "response.output_audio_transcript") if spoken else ("text", "response.output_text")
        part = "audio" if spoken else "text"
        yield self._event("response.content_part.added", **place, part={"type": part, key: ""})
        for piece in answer.pieces:
            yield self._event(f"{kind}.delta", **place, delta=piece)
        if spoken:
            yield self._event("response.output_audio.delta", **place, delta=spoken_audio(answer.text_tokens))
            yield self._event("response.output_audio.done", **place)
        yield self._event(f"{kind}.done", **place, **{key: answer.text})
        yield self._event("response.content_part.done", **place, part={"type": part, key: answer.text})

    def _call_events(self, place: Json, item: Json) -> Iterator[Event]:
        arguments = as_text(item["arguments"])
        for piece in argument_pieces(arguments):
            yield self._event("response.function_call_arguments.delta", **place, delta=piece)
        yield self._event("response.function_call_arguments.done", **place, name=item["name"], arguments=arguments)
