"""A message of Anthropic's Messages API as a value, its JSON and its events.

message_start, ping,
  content_block_start, content_block_delta ..., content_block_stop     for each block, by `index`
message_delta (stop reason, cumulative usage), message_stop
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_object, as_text, decode, encode
from tornado_proxy.simulator.model.directives import ToolCall
from tornado_proxy.simulator.model.output import Finish, ModelOutput, encode_piece, split_arguments
from tornado_proxy.simulator.model.prompt_cache import AnthropicInputTokens

#: Output tokens of a refused message.  Its content is empty, so the provider does not charge them.
_REFUSED_TOKENS = 5
_SIGNATURE = b64encode(b"simulated thinking signature").decode()
#: The values of `stop_reason` (Messages API reference).
_STOP_REASONS = {
    Finish.STOP: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.TOOLS: "tool_use",
    Finish.REFUSAL: "refusal",
}
_REFUSAL: Json = {"type": "refusal", "category": None, "explanation": "simulated refusal"}


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """A message before it is written as JSON or events.

    Attributes:
        body: the request.
        tier: the service tier that the response states.
        usage: True if the response states its usage.
    """

    id: str
    model: str
    body: Mapping[str, object]
    output: ModelOutput
    input_tokens: AnthropicInputTokens
    tier: str = "standard"
    usage: bool = True

    @property
    def output_tokens(self) -> int:
        """The number of output tokens, thinking included."""
        return _REFUSED_TOKENS if self.output.finish is Finish.REFUSAL else self.output.tokens

    def input_usage_json(self) -> Json:
        """Return the members for the input tokens: three disjoint parts."""
        input_tokens = self.input_tokens
        return {
            "input_tokens": input_tokens.fresh,
            "cache_creation_input_tokens": input_tokens.written_5m + input_tokens.written_1h,
            "cache_read_input_tokens": input_tokens.read,
        }

    def full_usage_json(self, output_tokens: int) -> Json:
        """Return the usage of a message or of `message_start`; cache writes are split by lifetime."""
        lifetimes = {
            "ephemeral_5m_input_tokens": self.input_tokens.written_5m,
            "ephemeral_1h_input_tokens": self.input_tokens.written_1h,
        }
        usage: Json = {
            **self.input_usage_json(),
            "cache_creation": lifetimes,
            "output_tokens": output_tokens,
            "service_tier": self.tier,
            "inference_geo": as_text(self.body.get("inference_geo"), "not_available"),
        }
        # The provider states the speed only for requests that name one; prices depend on it.
        if "speed" in self.body:
            usage["speed"] = self.body["speed"]
        return usage

    def final_usage_json(self) -> Json:
        """Return the members for the output tokens at the end of a message."""
        return {
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"thinking_tokens": self.output.thought_tokens},
        }

    def stop_json(self) -> Json:
        """Return the members that say why the message ends."""
        refused = self.output.finish is Finish.REFUSAL
        reason = _STOP_REASONS[self.output.finish]
        return {"stop_reason": reason, "stop_sequence": None, "stop_details": _REFUSAL if refused else None}

    def envelope_json(self) -> Json:
        """Return the message without content, stop reason and usage."""
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": []}

    def shows_thinking(self) -> bool:
        """Return True if thinking is shown as text; with `display: omitted` only its signature is."""
        return as_object(self.body.get("thinking")).get("display") != "omitted"

    def tool_block_json(self, call: ToolCall, index: int, arguments: object) -> Json:
        """Return the content block of a tool call."""
        # Derived from the message, so that JSON and events of one plan agree.
        tool_id = f"toolu_{self.id.removeprefix('msg_')}{index:x}"
        return {"type": "tool_use", "id": tool_id, "name": call.name, "input": arguments}


def make_message_json(plan: MessagePlan) -> Json:
    """Return the message as the provider sends it without streaming."""
    output, content = plan.output, list[Json]()
    if output.thoughts:
        text = "".join(output.thoughts) if plan.shows_thinking() else ""
        content.append({"type": "thinking", "thinking": text, "signature": _SIGNATURE})
    if output.pieces and output.finish is not Finish.REFUSAL:
        content.append({"type": "text", "text": output.text})
    for index, call in enumerate(output.tool_calls):
        content.append(plan.tool_block_json(call, index, _decode_arguments(call)))
    message = {**plan.envelope_json(), "content": content, **plan.stop_json()}
    if plan.usage:
        # final_usage_json replaces the output tokens, which message_start has to state before they are known.
        message["usage"] = {**plan.full_usage_json(0), **plan.final_usage_json()}
    return message


def make_message_events(plan: MessagePlan) -> Iterator[Event]:
    """Generate all events of the message."""
    start = {**plan.envelope_json(), "stop_reason": None, "stop_sequence": None, "stop_details": None}
    if plan.usage:
        # message_start counts one output token before any is written; message_delta states the cumulative figure.
        start["usage"] = plan.full_usage_json(1)
    yield "message_start", encode({"type": "message_start", "message": start})
    # The provider may send a ping at any time; clients and meters must skip it.
    yield "ping", b'{"type":"ping"}'
    for index, (block, deltas) in enumerate(_make_blocks(plan)):
        opening = {"type": "content_block_start", "index": index, "content_block": block}
        yield "content_block_start", encode(opening)
        before = b'{"type":"content_block_delta","index":%d,"delta":' % index
        for delta in deltas:
            yield "content_block_delta", before + delta + b"}"
        yield "content_block_stop", b'{"type":"content_block_stop","index":%d}' % index
    ending: Json = {"type": "message_delta", "delta": plan.stop_json()}
    if plan.usage:
        ending["usage"] = {**plan.input_usage_json(), **plan.final_usage_json()}
    yield "message_delta", encode(ending)
    yield "message_stop", b'{"type":"message_stop"}'


def make_failure_events(_sent: int) -> list[Event]:
    """Return the events that replace the rest of a stream when the provider fails."""
    error = {"type": "overloaded_error", "message": "Overloaded"}
    return [("error", encode({"type": "error", "error": error}))]


def _make_blocks(plan: MessagePlan) -> Iterator[tuple[Json, Iterator[bytes]]]:
    output = plan.output
    if output.thoughts:
        shown = output.thoughts if plan.shows_thinking() else ()
        yield {"type": "thinking", "thinking": "", "signature": ""}, _make_thinking_deltas(shown)
    if output.pieces and output.finish is not Finish.REFUSAL:
        deltas = (b'{"type":"text_delta","text":' + encode_piece(piece) + b"}" for piece in output.pieces)
        yield {"type": "text", "text": ""}, deltas
    for index, call in enumerate(output.tool_calls):
        yield plan.tool_block_json(call, index, {}), _make_argument_deltas(call)


def _make_thinking_deltas(thoughts: tuple[str, ...]) -> Iterator[bytes]:
    for piece in thoughts:
        yield b'{"type":"thinking_delta","thinking":' + encode_piece(piece) + b"}"
    yield encode({"type": "signature_delta", "signature": _SIGNATURE})


def _make_argument_deltas(call: ToolCall) -> Iterator[bytes]:
    """Generate the deltas of a tool's input; the first one is empty, as the provider's is."""
    for part in ["", *split_arguments(call.arguments)]:
        yield encode({"type": "input_json_delta", "partial_json": part})


def _decode_arguments(call: ToolCall) -> object:
    try:
        return decode(call.arguments)
    except ValueError:
        return {}
