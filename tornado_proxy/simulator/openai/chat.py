"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tornado_proxy.simulator.handlers.provider_errors import ProviderError, make_openai_failure
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_object, encode
from tornado_proxy.simulator.model.catalog import count_reasoning_tokens
from tornado_proxy.simulator.model.output import (
    REFUSAL_TEXT,
    Finish,
    ModelOutput,
    encode_piece,
    plan_output,
    split_arguments,
)
from tornado_proxy.simulator.model.prompt_cache import OpenAIInputTokens
from tornado_proxy.simulator.model.structured_output import make_structured_output
from tornado_proxy.simulator.openai.prompt import read_chat_prompt
from tornado_proxy.simulator.openai.responses.plan import find_served_tier

#: The values of `finish_reason`; a refusal ends like any text.
_FINISH = {
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
    Finish.TOOLS: "tool_calls",
    Finish.REFUSAL: "stop",
}


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """A completion before it is written as JSON or chunks.

    All `choices` have the same output, and one usage covers them all.
    """

    id: str
    model: str
    created: int
    body: Mapping[str, object]
    output: ModelOutput
    input_tokens: OpenAIInputTokens
    choices: int
    usage: bool

    @property
    def include_usage(self) -> bool:
        """True if a stream states usage: only if the request asks for it."""
        return self.usage and as_object(self.body.get("stream_options")).get("include_usage") is True

    def usage_json(self) -> Json:
        """Return the usage; cached, written and reasoning tokens are parts of the totals."""
        completion_tokens = self.output.tokens * self.choices
        return {
            "prompt_tokens": self.input_tokens.total,
            "completion_tokens": completion_tokens,
            "total_tokens": self.input_tokens.total + completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.input_tokens.cached,
                "cache_write_tokens": self.input_tokens.written,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": self.output.thought_tokens * self.choices,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def tool_calls(self, choice: int) -> list[Json]:
        """Return the tool calls of a choice; each choice has ids of its own."""
        return [
            {
                "id": f"call_{self.id.removeprefix('chatcmpl-')}{choice:x}{index:x}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(self.output.tool_calls)
        ]


#: The highest `n` (OpenAI API reference, "Create chat completion").
_MAX_CHOICES = 128


def read_choice_count(value: object) -> int:
    """Return the number of choices that a request asks for, 1 by default.

    Raises:
        ProviderError: 400, more than the provider makes.
    """
    count = max(1, as_count(value, 1))
    if count > _MAX_CHOICES:
        raise ProviderError(400, f"n must be at most {_MAX_CHOICES}", param="n")
    return count


class ChatCompletions(ProviderHandler):
    """POST /v1/chat/completions."""

    async def post(self) -> None:
        """Respond with a JSON body or a stream of chunks."""
        body = self.read_json()
        model = self.check_model(body.get("model"))
        prompt = read_chat_prompt(body)
        directives = await self.apply_directives(prompt.user_text, tools_answered=prompt.tools_answered)
        # `max_tokens` is the deprecated name of the same limit.
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        output = plan_output(
            directives,
            limit=as_count(limit) if limit is not None else None,
            thoughts=count_reasoning_tokens(model, body.get("reasoning_effort")),
            credential=self.find_credential(),
            structured_text=make_structured_output(body.get("response_format")),
        )
        plan = ChatPlan(
            id=self.simulator.new_id("chatcmpl-"),
            model=model,
            created=int(time.time()),
            body=body,
            output=output,
            input_tokens=self.simulator.prompt_cache.split_openai(model, prompt),
            choices=read_choice_count(body.get("n")),
            usage=not directives.no_usage,
        )
        if body.get("stream") is True:
            await self.send_events(make_chat_events(plan), make_openai_failure)
        else:
            await self.send_json(make_chat_json(plan))


def make_chat_json(plan: ChatPlan) -> Json:
    """Return the completion as JSON."""
    refused, tool_calls = plan.output.finish is Finish.REFUSAL, bool(plan.output.tool_calls)
    choices: list[Json] = []
    for index in range(plan.choices):
        message: Json = {
            "role": "assistant",
            # A message has either text, a refusal or tool calls.
            "content": None if refused or tool_calls else plan.output.text,
            "refusal": REFUSAL_TEXT if refused else None,
            "annotations": [],
        }
        if tool_calls:
            message["tool_calls"] = plan.tool_calls(index)
        reason = _FINISH[plan.output.finish]
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    response: Json = {
        "id": plan.id,
        "object": "chat.completion",
        "created": plan.created,
        "model": plan.model,
        "choices": choices,
        "service_tier": find_served_tier(plan.body),
        "system_fingerprint": "fp_simulated",
    }
    return {**response, "usage": plan.usage_json()} if plan.usage else response


def make_chat_events(plan: ChatPlan) -> Iterator[Event]:
    """Generate the chunks, the usage chunk if the request asks for it, and `[DONE]`."""
    members: Json = {
        "id": plan.id,
        "object": "chat.completion.chunk",
        "created": plan.created,
        "model": plan.model,
        "service_tier": find_served_tier(plan.body),
        "system_fingerprint": "fp_simulated",
    }
    # Chunks are joined from bytes: an encoder for each one would make the simulator the slowest part of a benchmark.
    head = encode(members)[:-1] + b',"choices":['
    # With include_usage every chunk but the last one has `"usage":null` (chat reference, stream_options).
    tail = b',"usage":null}' if plan.include_usage else b"}"
    for index in range(plan.choices):
        before = head + b'{"index":%d,"delta":' % index
        for delta in _make_deltas(plan, index):
            yield "", before + delta + b',"logprobs":null,"finish_reason":null}]' + tail
        reason = _FINISH[plan.output.finish].encode()
        yield "", before + b'{},"logprobs":null,"finish_reason":"' + reason + b'"}]' + tail
    # The usage chunk has no choices; clients that index choices[0] fail on it, so a proxy must hide it from others.
    if plan.include_usage:
        yield "", head + b'],"usage":' + encode(plan.usage_json()) + b"}"
    yield "", b"[DONE]"


def _make_deltas(plan: ChatPlan, choice: int) -> Iterator[bytes]:
    tool_calls = plan.tool_calls(choice)
    # The first delta carries the role alone.
    first: Json = {"role": "assistant", "content": None if tool_calls else "", "refusal": None}
    yield encode(first)
    member = b'{"refusal":' if plan.output.finish is Finish.REFUSAL else b'{"content":'
    for piece in plan.output.pieces:
        yield member + encode_piece(piece) + b"}"
    for index, (call_json, call) in enumerate(zip(tool_calls, plan.output.tool_calls, strict=True)):
        function: Json = {"name": call.name, "arguments": ""}
        yield encode({"tool_calls": [{**call_json, "index": index, "function": function}]})
        for part in split_arguments(call.arguments):
            yield encode({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
