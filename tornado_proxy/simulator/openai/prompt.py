"""Reads prompts of OpenAI's APIs: the texts of a body that the model reads, in the order of the cached prefix."""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.simulator.json_values import as_list, as_object, as_text, encode_text
from tornado_proxy.simulator.model.prompt import Prompt, Segment, make_prompt

_IMAGE_TYPES = frozenset({"image_url", "input_image", "image"})
#: Types of input items that hold the result of a tool: a `tool` directive before one is done.
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


def read_chat_prompt(body: Mapping[str, object]) -> Prompt:
    """Return the prompt of a chat completion: tools, then messages."""
    segments = _read_tools(body)
    user_text, tools_answered = "", False
    for message in map(as_object, as_list(body.get("messages"))):
        parts = _read_content(message.get("content"))
        segments += parts
        segments += [Segment(_format_tool_call(as_object(call))) for call in as_list(message.get("tool_calls"))]
        if message.get("role") == "user":
            user_text, tools_answered = _join_texts(parts), False
        elif message.get("role") in ("tool", "function"):
            tools_answered = True
    return make_prompt(segments, user_text, tools_answered=tools_answered)


def read_responses_prompt(body: Mapping[str, object], history: tuple[Segment, ...] = ()) -> Prompt:
    """Return the prompt of a response: tools, instructions, the `history` of earlier turns, then the input."""
    segments = [*_read_tools(body), *_read_content(body.get("instructions"))]
    preamble = len(segments)
    # After the instructions, which belong to the new request: those of earlier ones do not carry over.
    segments += history
    input_ = body.get("input")
    if isinstance(input_, str):
        return make_prompt([*segments, Segment(input_)], input_, preamble=preamble)
    user_text, tools_answered = "", False
    for item in map(as_object, as_list(input_)):
        parts = _read_item(item)
        segments += parts
        if item.get("role") == "user":
            user_text, tools_answered = _join_texts(parts), False
        elif as_text(item.get("type")) in _TOOL_RESULTS:
            tools_answered = True
    return make_prompt(segments, user_text, tools_answered=tools_answered, preamble=preamble)


def make_text_prompt(*texts: str) -> Prompt:
    """Return the prompt of an endpoint that takes plain text."""
    return make_prompt([Segment(text) for text in texts if text], "\n".join(texts))


def _read_item(item: Mapping[str, object]) -> list[Segment]:
    """Return the texts of an input item: a message, a tool call, a tool result or reasoning."""
    segments = _read_content(item.get("content"))
    # Items differ by type, but no type uses one of these members for anything else than text for the model.
    for key in ("name", "arguments", "input", "encrypted_content"):
        segments += _read_content(item.get(key))
    segments += _read_content(item.get("output"))
    for key in ("summary", "action"):
        value = item.get(key)
        segments += _read_content(value) if isinstance(value, list) else []
    return segments


def _read_content(content: object) -> list[Segment]:
    if isinstance(content, str):
        return [Segment(content)] if content else []
    segments = []
    for part in as_list(content):
        if isinstance(part, str):
            segments.append(Segment(part))
            continue
        members = as_object(part)
        if as_text(members.get("type")) in _IMAGE_TYPES:
            segments.append(Segment(encode_text(part), image=True))
        elif text := as_text(members.get("text")) or as_text(members.get("refusal")):
            segments.append(Segment(text))
    return segments


def _read_tools(body: Mapping[str, object]) -> list[Segment]:
    return [Segment(encode_text(tool)) for tool in as_list(body.get("tools"))]


def _format_tool_call(call: Mapping[str, object]) -> str:
    function = as_object(call.get("function")) or as_object(call.get("custom"))
    return " ".join(as_text(function.get(key)) for key in ("name", "arguments", "input"))


def _join_texts(segments: list[Segment]) -> str:
    return "\n".join(segment.text for segment in segments if not segment.image)
