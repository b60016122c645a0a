"""One message of Anthropic's Messages API as a value, its JSON and its events.

message_start, ping,
  content_block_start, content_block_delta ..., content_block_stop     for each block, in the order of `index`
message_delta (stop reason, cumulative usage), message_stop
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_object, as_text, decode, encode
from tornado_proxy.simulator.model.directives import ToolCall
from tornado_proxy.simulator.model.output import Answer, Finish, argument_pieces, piece_json
from tornado_proxy.simulator.model.prompt_cache import AnthropicInput

#: What a refused message has written before it was stopped; not charged, since its content is empty.
_REFUSED_TOKENS = 5
_SIGNATURE = b64encode(b"simulated thinking signature").decode()
_STOP_REASONS = {
    Finish.STOP: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.TOOLS: "tool_use",
    Finish.REFUSAL: "refusal",
}
_REFUSAL: Json = {"type": "refusal", "category": None, "explanation": "simulated refusal"}


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """`body` is the request, `tier` the served tier, `usage` whether the answer states what it used."""

    id: str
    model: str
    body: Mapping[str, object]
    answer: Answer
    counted: AnthropicInput
    tier: str = "standard"
    usage: bool = True

    @property
    def output_tokens(self) -> int:
        """All tokens written, thinking included."""
        return _REFUSED_TOKENS if self.answer.finish is Finish.REFUSAL else self.answer.tokens

    def input_usage(self) -> Json:
        """The input side: three disjoint parts, the written one split by lifetime."""
        counted = self.counted
        return {
            "input_tokens": counted.fresh,
            "cache_creation_input_tokens": counted.written_5m + counted.written_1h,
            "cache_read_input_tokens": counted.read,
        }

    def full_usage(self, output_tokens: int) -> Json:
        """Usage as a whole message or `message_start` has it."""
        lifetimes = {
            "ephemeral_5m_input_tokens": self.counted.written_5m,
            "ephemeral_1h_input_tokens": self.counted.written_1h,
        }
        usage: Json = {
            **self.input_usage(),
            "cache_creation": lifetimes,
            "output_tokens": output_tokens,
            "service_tier": self.tier,
            "inference_geo": as_text(self.body.get("inference_geo"), "not_available"),
        }
        if "speed" in self.body:
            usage["speed"] = self.body["speed"]
        return usage

    def final_usage(self) -> Json:
        """The output side in full, for the end of a message."""
        return {
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"thinking_tokens": self.answer.thought_tokens},
        }

    def stop(self) -> Json:
        """Why the message ends."""
        refused = self.answer.finish is Finish.REFUSAL
        reason = _STOP_REASONS[self.answer.finish]
        return {"stop_reason": reason, "stop_sequence": None, "stop_details": _REFUSAL if refused else None}

    def envelope(self) -> Json:
        """The message without content and end."""
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": []}

    def thinking_shown(self) -> bool:
        """Whether thinking is shown as text; `display: omitted` leaves only its signature."""
        return as_object(self.body.get("thinking")).get("display") != "omitted"

    def tool_block(self, call: ToolCall, index: int, arguments: object) -> Json:
        """A call of a tool."""
        tool_id = f"toolu_{self.id.removeprefix('msg_')}{index:x}"
        return {"type": "tool_use", "id": tool_id, "name": call.name, "input": arguments}


def message_json(plan: MessagePlan) -> Json:
    """The whole message."""
    answer, content = plan.answer, list[Json]()
    if answer.thoughts:
        text = "".join(answer.thoughts) if plan.thinking_shown() else ""
        content.append({"type": "thinking", "thinking": text, "signature": _SIGNATURE})
    if answer.pieces and answer.finish is not Finish.REFUSAL:
        content.append({"type": "text", "text": answer.text})
    for index, call in enumerate(answer.calls):
        content.append(plan.tool_block(call, index, _arguments(call)))
    message = {**plan.envelope(), "content": content, **plan.stop()}
    if plan.usage:
        message["usage"] = {**plan.full_usage(0), **plan.final_usage()}
    return message


def message_events(plan: MessagePlan) -> Iterator[Event]:
    """All events of the message."""
    start = {**plan.envelope(), "stop_reason": None, "stop_sequence": None, "stop_details": None}
    if plan.usage:
        start["usage"] = plan.full_usage(1)
    yield "message_start", encode({"type": "message_start", "message": start})
    yield "ping", b'{"type":"ping"}'
    for index, (block, deltas) in enumerate(_blocks(plan)):
        opening = {"type": "content_block_start", "index": index, "content_block": block}
        yield "content_block_start", encode(opening)
        before = b'{"type":"content_block_delta","index":%d,"delta":' % index
        for delta in deltas:
            yield "content_block_delta", before + delta + b"}"
        yield "content_block_stop", b'{"type":"content_block_stop","index":%d}' % index
    ending: Json = {"type": "message_delta", "delta": plan.stop()}
    if plan.usage:
        ending["usage"] = {**plan.input_usage(), **plan.final_usage()}
    yield "message_delta", encode(ending)
    yield "message_stop", b'{"type":"message_stop"}'


def failure_events(_sent: int) -> list[Event]:
    """What comes instead of the rest when the provider fails in a stream."""
    error = {"type": "overloaded_error", "message": "Overloaded"}
    return [("error", encode({"type": "error", "error": error}))]


def _blocks(plan: MessagePlan) -> Iterator[tuple[Json, Iterator[bytes]]]:
    answer = plan.answer
    if answer.thoughts:
        shown = answer.thoughts if plan.thinking_shown() else ()
        yield {"type": "thinking", "thinking": "", "signature": ""}, _thinking_deltas(shown)
    if answer.pieces and answer.finish is not Finish.REFUSAL:
        deltas = (b'{"type":"text_delta","text":' + piece_json(piece) + b"}" for piece in answer.pieces)
        yield {"type": "text", "text": ""}, deltas
    for index, call in enumerate(answer.calls):
        yield plan.tool_block(call, index, {}), _argument_deltas(call)


def _thinking_deltas(thoughts: tuple[str, ...]) -> Iterator[bytes]:
    for piece in thoughts:
        yield b'{"type":"thinking_delta","thinking":' + piece_json(piece) + b"}"
    yield encode({"type": "signature_delta", "signature": _SIGNATURE})


def _argument_deltas(call: ToolCall) -> Iterator[bytes]:
    """The provider's first delta of a tool's input is empty."""
    for part in ["", *argument_pieces(call.arguments)]:
        yield encode({"type": "input_json_delta", "partial_json": part})


def _arguments(call: ToolCall) -> object:
    try:
        return decode(call.arguments)
    except ValueError:
        return {}
