"""A response of the Responses API as a value, before it is written as JSON or events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tornado_proxy.simulator.json_values import Json, as_list, as_object
from tornado_proxy.simulator.model.directives import ToolCall
from tornado_proxy.simulator.model.output import REFUSAL_TEXT, Finish, ModelOutput
from tornado_proxy.simulator.model.prompt_cache import OpenAIInputTokens

#: The content for `include: [reasoning.encrypted_content]`: opaque to clients, who only send it back.
ENCRYPTED_CONTENT = "gAAAAABzaW11bGF0ZWQtcmVhc29uaW5n"

#: Members of the request that a response repeats, and their defaults.
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
    """A response before it is written as JSON or events.

    Item ids follow from `id`, so that a stream that is read again has the same bytes.

    Attributes:
        created: Unix time in seconds.
        body: the request.
        usage: True if the response states its usage.
    """

    id: str
    model: str
    created: int
    body: Mapping[str, object]
    output: ModelOutput
    input_tokens: OpenAIInputTokens
    usage: bool = True

    @property
    def status(self) -> str:
        """The final status."""
        return "incomplete" if self.output.finish is Finish.LENGTH else "completed"

    @property
    def has_summary(self) -> bool:
        """True if the reasoning item has a summary."""
        return as_object(self.body.get("reasoning")).get("summary") is not None

    def item_id(self, prefix: str, index: int = 0) -> str:
        """Return the id of an output item."""
        return f"{prefix}{self.id.removeprefix('resp_')}{index:02x}"

    def usage_json(self) -> Json | None:
        """Return the usage, or None if the response has to omit it."""
        if not self.usage:
            return None
        return make_responses_usage(self.input_tokens, self.output)

    def response_json(self, status: str, *, output: list[Json] | None = None, error: Json | None = None) -> Json:
        """Return the response object in that status; usage and the served tier are known when it has ended."""
        # A response in progress has neither a final tier nor usage.
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
            "service_tier": find_served_tier(body) if ended else body.get("service_tier") or "auto",
            "usage": self.usage_json() if ended else None,
        }
        # An explicit null in the request shows the default, too.
        for key, default in _ECHOED.items():
            value = body.get(key)
            shown[key] = default if value is None else value
        return shown

    def output_items(self) -> list[Json]:
        """Return all output items, complete."""
        items: list[Json] = []
        if self.output.thoughts:
            items.append(self.reasoning_item())
        if self.output.pieces:
            items.append(self.message_item("completed", [self.content_part(self.output.text)]))
        items += [self.call_item(call, index, done=True) for index, call in enumerate(self.output.tool_calls)]
        return items

    def reasoning_item(self, *, done: bool = True) -> Json:
        """Return the reasoning item, with encrypted content if the request includes it."""
        text = "".join(self.output.thoughts)
        summary: list[Json] = [{"type": "summary_text", "text": text}] if done and self.has_summary else []
        item: Json = {"id": self.item_id("rs_"), "type": "reasoning", "summary": summary}
        # For clients that do not store responses and send reasoning back themselves.
        if "reasoning.encrypted_content" in as_list(self.body.get("include")):
            item["encrypted_content"] = ENCRYPTED_CONTENT
        return item

    def message_item(self, status: str, content: list[Json]) -> Json:
        """Return the message item."""
        return {
            "id": self.item_id("msg_"),
            "type": "message",
            "status": status,
            "content": content,
            "phase": "final_answer",
            "role": "assistant",
        }

    def content_part(self, text: str) -> Json:
        """Return the only content part of the message."""
        if self.output.finish is Finish.REFUSAL:
            return {"type": "refusal", "refusal": text and REFUSAL_TEXT}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def call_item(self, call: ToolCall, index: int, *, done: bool) -> Json:
        """Return a function call, or a custom tool call if the request declares the tool as custom."""
        status = "completed" if done else "in_progress"
        text = call.arguments if done else ""
        # The call has an id of its own: the client returns it with the result.
        item: Json = {"status": status, "call_id": self.item_id("call_", index), "name": call.name}
        if self.is_custom(call):
            return {"id": self.item_id("ctc_", index), "type": "custom_tool_call", "input": text, **item}
        return {"id": self.item_id("fc_", index), "type": "function_call", "arguments": text, **item}

    def is_custom(self, call: ToolCall) -> bool:
        """Return True if the request declares the tool as custom: it takes plain text instead of JSON."""
        tools = map(as_object, as_list(self.body.get("tools")))
        return any(tool.get("type") == "custom" and tool.get("name") == call.name for tool in tools)


def make_responses_usage(input_tokens: OpenAIInputTokens, output: ModelOutput) -> Json:
    """Return the usage; cached, written and reasoning tokens are parts of the totals."""
    return {
        "input_tokens": input_tokens.total,
        "input_tokens_details": {"cached_tokens": input_tokens.cached, "cache_write_tokens": input_tokens.written},
        "output_tokens": output.tokens,
        "output_tokens_details": {"reasoning_tokens": output.thought_tokens},
        "total_tokens": input_tokens.total + output.tokens,
    }


def find_served_tier(body: Mapping[str, object]) -> str:
    """Return the service tier that a response states: `default` for `auto`, else the requested one."""
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) and tier != "auto" else "default"
