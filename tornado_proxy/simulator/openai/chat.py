"""POST /v1/chat/completions and /v1/embeddings."""

from __future__ import annotations

import struct
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tornado_proxy.simulator.handlers.provider_errors import openai_error
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_count, as_object, encode
from tornado_proxy.simulator.model.catalog import reasoning_tokens
from tornado_proxy.simulator.model.output import REFUSAL_TEXT, Answer, Finish, argument_pieces, piece_json, plan_answer
from tornado_proxy.simulator.model.prompt_cache import OpenAIInput
from tornado_proxy.simulator.model.structured_output import openai_answer
from tornado_proxy.simulator.openai.prompt import chat_prompt, text_prompt
from tornado_proxy.simulator.openai.responses.plan import served_tier

_FINISH = {
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
    Finish.TOOLS: "tool_calls",
    Finish.REFUSAL: "stop",
}
_EMBEDDING_LENGTH = 1536


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """One completion: `choices` of it have the same answer, and one usage over all."""

    id: str
    model: str
    created: int
    body: Mapping[str, object]
    answer: Answer
    counted: OpenAIInput
    choices: int
    usage: bool

    @property
    def include_usage(self) -> bool:
        """Whether a stream states usage: only when asked."""
        return self.usage and as_object(self.body.get("stream_options")).get("include_usage") is True

    def usage_json(self) -> Json:
        """Usage as chat completions state it: details are parts of the figures above them."""
        output, thoughts = self.answer.tokens * self.choices, self.answer.thought_tokens * self.choices
        return {
            "prompt_tokens": self.counted.total,
            "completion_tokens": output,
            "total_tokens": self.counted.total + output,
            "prompt_tokens_details": {
                "cached_tokens": self.counted.cached,
                "cache_write_tokens": self.counted.written,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": thoughts,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def tool_calls(self, choice: int) -> list[Json]:
        """The calls of one choice."""
        return [
            {
                "id": f"call_{self.id.removeprefix('chatcmpl-')}{choice:x}{index:x}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(self.answer.calls)
        ]


class ChatCompletions(ProviderHandler):
    """POST /v1/chat/completions."""

    async def post(self) -> None:
        """Answer with one JSON body or a stream of chunks."""
        body = self.read_json()
        model = self.required_model(body.get("model"))
        prompt = chat_prompt(body)
        asked = await self.obey(prompt.user_text, answering=not prompt.tools_answered)
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        answer = plan_answer(
            asked,
            limit=as_count(limit) if limit is not None else None,
            thoughts=reasoning_tokens(model, body.get("reasoning_effort")),
            secret=self.credential(),
            text=openai_answer(body.get("response_format")),
        )
        plan = ChatPlan(
            id=self.simulator.new_id("chatcmpl-"),
            model=model,
            created=int(time.time()),
            body=body,
            answer=answer,
            counted=self.simulator.prompt_cache.split_openai(model, prompt),
            choices=max(1, as_count(body.get("n"), 1)),
            usage=not asked.no_usage,
        )
        if body.get("stream") is True:
            await self.send_events(chat_events(plan), _failure)
        else:
            await self.send_json(chat_json(plan))


def chat_json(plan: ChatPlan) -> Json:
    """The whole completion."""
    refused, calls = plan.answer.finish is Finish.REFUSAL, bool(plan.answer.calls)
    choices: list[Json] = []
    for index in range(plan.choices):
        message: Json = {
            "role": "assistant",
            "content": None if refused or calls else plan.answer.text,
            "refusal": REFUSAL_TEXT if refused else None,
            "annotations": [],
        }
        if calls:
            message["tool_calls"] = plan.tool_calls(index)
        reason = _FINISH[plan.answer.finish]
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    answer: Json = {
        "id": plan.id,
        "object": "chat.completion",
        "created": plan.created,
        "model": plan.model,
        "choices": choices,
        "service_tier": served_tier(plan.body),
        "system_fingerprint": "fp_simulated",
    }
    return {**answer, "usage": plan.usage_json()} if plan.usage else answer


def chat_events(plan: ChatPlan) -> Iterator[Event]:
    """The chunks, the usage chunk if asked for, and `[DONE]`."""
    members: Json = {
        "id": plan.id,
        "object": "chat.completion.chunk",
        "created": plan.created,
        "model": plan.model,
        "service_tier": served_tier(plan.body),
        "system_fingerprint": "fp_simulated",
    }
    head = encode(members)[:-1] + b',"choices":['
    tail = b',"usage":null}' if plan.include_usage else b"}"
    for index in range(plan.choices):
        before = head + b'{"index":%d,"delta":' % index
        for delta in _deltas(plan, index):
            yield "", before + delta + b',"logprobs":null,"finish_reason":null}]' + tail
        reason = _FINISH[plan.answer.finish].encode()
        yield "", before + b'{},"logprobs":null,"finish_reason":"' + reason + b'"}]' + tail
    if plan.include_usage:
        yield "", head + b'],"usage":' + encode(plan.usage_json()) + b"}"
    yield "", b"[DONE]"


def _deltas(plan: ChatPlan, choice: int) -> Iterator[bytes]:
    calls = plan.tool_calls(choice)
    first: Json = {"role": "assistant", "content": None if calls else "", "refusal": None}
    yield encode(first)
    member = b'{"refusal":' if plan.answer.finish is Finish.REFUSAL else b'{"content":'
    for piece in plan.answer.pieces:
        yield member + piece_json(piece) + b"}"
    for index, (call, planned) in enumerate(zip(calls, plan.answer.calls, strict=True)):
        function: Json = {"name": planned.name, "arguments": ""}
        yield encode({"tool_calls": [{**call, "index": index, "function": function}]})
        for part in argument_pieces(planned.arguments):
            yield encode({"tool_calls": [{"index": index, "function": {"arguments": part}}]})


def _failure(_sent: int) -> list[Event]:
    return [("", encode(openai_error(500, "simulated failure")))]


class Embeddings(ProviderHandler):
    """POST /v1/embeddings."""

    async def post(self) -> None:
        """One vector for each input; tokens given as numbers count one each."""
        body = self.read_json()
        model = self.required_model(body.get("model"))
        given = body.get("input")
        inputs = given if isinstance(given, list) and not all(isinstance(part, int) for part in given) else [given]
        texts = [part for part in inputs if isinstance(part, str)]
        numbers = sum(len(part) for part in inputs if isinstance(part, list))
        prompt = text_prompt(*texts)
        asked = await self.obey(prompt.user_text)
        tokens = (prompt.tokens if texts else 0) + numbers
        vector = _vector(as_count(body.get("dimensions"), _EMBEDDING_LENGTH), body.get("encoding_format"))
        answer: Json = {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(inputs))],
            "model": model,
        }
        if not asked.no_usage:
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        await self.send_json(answer)


def _vector(length: int, encoding: object) -> object:
    """A unit vector along the first axis."""
    values = [1.0] + [0.0] * (max(1, length) - 1)
    return b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if encoding == "base64" else values
