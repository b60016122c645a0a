"""One response of the Responses API as a value: everything that its JSON and its events are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tornado_proxy.simulator.json_values import Json, as_list, as_object
from tornado_proxy.simulator.model.directives import ToolCall
from tornado_proxy.simulator.model.output import REFUSAL_TEXT, Answer, Finish
from tornado_proxy.simulator.model.prompt_cache import OpenAIInput

#: What an `include: [reasoning.encrypted_content]` gets: opaque to clients, who only send it back.
ENCRYPTED = "gAAAAABzaW11bGF0ZWQtcmVhc29uaW5n"

#: Request members that a response repeats, with the value it shows where the request has none.
_ECHOED: Mapping[str, object] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """`body` is the request, `created` Unix seconds, `usage` whether the answer states it.

    Item ids follow from `id`, so that a stream that is read again is the same stream.
    """

    id: str
    model: str
    created: int
    body: Mapping[str, object]
    answer: Answer
    counted: OpenAIInput
    usage: bool = True

    @property
    def status(self) -> str:
        """The status at the end."""
        return "incomplete" if self.answer.finish is Finish.LENGTH else "completed"

    @property
    def has_summary(self) -> bool:
        """Whether the reasoning item shows a summary."""
        return as_object(self.body.get("reasoning")).get("summary") is not None

    def item_id(self, prefix: str, index: int = 0) -> str:
        """The id of an output item."""
        return f"{prefix}{self.id.removeprefix('resp_')}{index:02x}"

    def usage_json(self) -> Json | None:
        """The usage: cached, written and reasoning tokens are parts of the figures above them."""
        if not self.usage:
            return None
        return responses_usage(self.counted, self.answer)

    def response_json(self, status: str, *, output: list[Json] | None = None, error: Json | None = None) -> Json:
        """The response object in that state; usage and the served tier stand in an ended one only."""
        ended = status in ("completed", "incomplete")
        body = self.body
        shown: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "completed_at": self.created if status == "completed" else None,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self.model,
            "output": output or [],
            "reasoning": {"effort": None, "summary": None, **as_object(body.get("reasoning"))},
            "text": {"format": {"type": "text"}, "verbosity": "medium", **as_object(body.get("text"))},
            "service_tier": served_tier(body) if ended else body.get("service_tier") or "auto",
            "usage": self.usage_json() if ended else None,
        }
        for key, default in _ECHOED.items():
            value = body.get(key)
            shown[key] = default if value is None else value
        return shown

    def output(self) -> list[Json]:
        """All output items, complete."""
        items: list[Json] = []
        if self.answer.thoughts:
            items.append(self.reasoning_item())
        if self.answer.pieces:
            items.append(self.message_item("completed", [self.content_part(self.answer.text)]))
        items += [self.call_item(call, index, done=True) for index, call in enumerate(self.answer.calls)]
        return items

    def reasoning_item(self, *, done: bool = True) -> Json:
        """The reasoning item; encrypted content where the request includes it."""
        text = "".join(self.answer.thoughts)
        summary: list[Json] = [{"type": "summary_text", "text": text}] if done and self.has_summary else []
        item: Json = {"id": self.item_id("rs_"), "type": "reasoning", "summary": summary}
        if "reasoning.encrypted_content" in as_list(self.body.get("include")):
            item["encrypted_content"] = ENCRYPTED
        return item

    def message_item(self, status: str, content: list[Json]) -> Json:
        """The message item."""
        return {
            "id": self.item_id("msg_"),
            "type": "message",
            "status": status,
            "content": content,
            "phase": "final_answer",
            "role": "assistant",
        }

    def content_part(self, text: str) -> Json:
        """The one content part of the message."""
        if self.answer.finish is Finish.REFUSAL:
            return {"type": "refusal", "refusal": text and REFUSAL_TEXT}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def call_item(self, call: ToolCall, index: int, *, done: bool) -> Json:
        """A function call, or a custom tool call where the request declares the tool as custom."""
        status = "completed" if done else "in_progress"
        text = call.arguments if done else ""
        item: Json = {"status": status, "call_id": self.item_id("call_", index), "name": call.name}
        if self.is_custom(call):
            return {"id": self.item_id("ctc_", index), "type": "custom_tool_call", "input": text, **item}
        return {"id": self.item_id("fc_", index), "type": "function_call", "arguments": text, **item}

    def is_custom(self, call: ToolCall) -> bool:
        """Whether the tool takes free text instead of JSON."""
        tools = map(as_object, as_list(self.body.get("tools")))
        return any(tool.get("type") == "custom" and tool.get("name") == call.name for tool in tools)


def responses_usage(counted: OpenAIInput, answer: Answer) -> Json:
    """Usage as the Responses API states it."""
    return {
        "input_tokens": counted.total,
        "input_tokens_details": {"cached_tokens": counted.cached, "cache_write_tokens": counted.written},
        "output_tokens": answer.tokens,
        "output_tokens_details": {"reasoning_tokens": answer.thought_tokens},
        "total_tokens": counted.total + answer.tokens,
    }


def served_tier(body: Mapping[str, object]) -> str:
    """The tier that an answer names: `auto` is served as `default`, every other word as itself."""
    asked = body.get("service_tier")
    return asked if isinstance(asked, str) and asked != "auto" else "default"
