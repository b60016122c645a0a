"""Prompts of OpenAI's APIs: which texts of a body the model would read, in the order that counts for caching."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.json_values import as_list, as_object, as_text, encode_text
from tornado_proxy.simulator.model.prompt import Prompt, Segment, make_prompt

_IMAGE_TYPES = frozenset({"image_url", "input_image", "image"})
_TOOL_RESULTS = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "shell_call_output",
        "computer_call_output",
        "apply_patch_call_output",
        "mcp_approval_response",
    }
)


def chat_prompt(body: Mapping[str, object]) -> Prompt:
    """The prompt of a chat completion: tools, then the messages."""
    segments = _tool_segments(body)
    user_text, answered = "", False
    for message in map(as_object, as_list(body.get("messages"))):
        parts = _content_segments(message.get("content"))
        segments += parts
        segments += [Segment(_call_text(as_object(call))) for call in as_list(message.get("tool_calls"))]
        if message.get("role") == "user":
            user_text, answered = _joined(parts), False
        elif message.get("role") in ("tool", "function"):
            answered = True
    return make_prompt(segments, user_text, tools_answered=answered)


def responses_prompt(body: Mapping[str, object], history: tuple[Segment, ...] = ()) -> Prompt:
    """The prompt of a response: tools and instructions, the earlier turns that it goes on from, then the input."""
    segments = [*_tool_segments(body), *_content_segments(body.get("instructions"))]
    preamble = len(segments)
    segments += history
    given = body.get("input")
    if isinstance(given, str):
        return make_prompt([*segments, Segment(given)], given, preamble=preamble)
    user_text, answered = "", False
    for item in map(as_object, as_list(given)):
        parts = _item_segments(item)
        segments += parts
        if item.get("role") == "user":
            user_text, answered = _joined(parts), False
        elif item.get("type") in _TOOL_RESULTS:
            answered = True
    return make_prompt(segments, user_text, tools_answered=answered, preamble=preamble)


def text_prompt(*texts: str) -> Prompt:
    """The prompt of an endpoint that takes plain text."""
    return make_prompt([Segment(text) for text in texts if text], "\n".join(texts))


def _item_segments(item: Mapping[str, object]) -> list[Segment]:
    """The texts of one input item: a message, a tool call, a tool result or reasoning."""
    segments = _content_segments(item.get("content"))
    for key in ("name", "arguments", "input", "encrypted_content"):
        segments += _content_segments(item.get(key))
    output = item.get("output")
    segments += _content_segments(output)
    for key in ("summary", "action"):
        value = item.get(key)
        segments += _content_segments(value) if isinstance(value, list) else []
    return segments


def _content_segments(content: object) -> list[Segment]:
    if isinstance(content, str):
        return [Segment(content)] if content else []
    segments = []
    for part in as_list(content):
        if isinstance(part, str):
            segments.append(Segment(part))
            continue
        members = as_object(part)
        if members.get("type") in _IMAGE_TYPES:
            segments.append(Segment(encode_text(part), image=True))
        elif text := as_text(members.get("text")) or as_text(members.get("refusal")):
            segments.append(Segment(text))
    return segments


def _tool_segments(body: Mapping[str, object]) -> list[Segment]:
    return [Segment(encode_text(tool)) for tool in as_list(body.get("tools"))]


def _call_text(call: Mapping[str, object]) -> str:
    function = as_object(call.get("function")) or as_object(call.get("custom"))
    return " ".join(as_text(function.get(key)) for key in ("name", "arguments", "input"))


def _joined(segments: list[Segment]) -> str:
    return "\n".join(segment.text for segment in segments if not segment.image)
