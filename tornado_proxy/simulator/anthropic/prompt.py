"""Reads prompts of Anthropic's Messages API: tools, system and messages, with their cache breakpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tornado_proxy.simulator.json_values import as_list, as_object, as_text, encode_text
from tornado_proxy.simulator.model.prompt import Prompt, Segment, make_prompt


def read_messages_prompt(body: Mapping[str, object]) -> Prompt:
    """Return the prompt of a message.

    Tools come before system and messages: prefixes are cached in that order (Anthropic's prompt caching guide).  A
    `cache_control` of the body itself marks the last block (automatic caching).
    """
    segments = [
        Segment(encode_text(_remove_breakpoint(as_object(tool))), cache_ttl=_read_ttl(as_object(tool)))
        for tool in as_list(body.get("tools"))
    ]
    # `system` is text or a list of blocks, like `content`.
    segments += _read_blocks(body.get("system"))
    user_text, tools_answered = "", False
    for message in map(as_object, as_list(body.get("messages"))):
        content = message.get("content")
        segments += _read_blocks(content)
        if message.get("role") != "user":
            continue
        texts, results = _read_user_texts(content)
        if texts:
            # A message of tool results alone leaves the text before it in force, with its directives.
            user_text = "\n".join(texts)
        tools_answered = results
    if segments and (ttl := _read_ttl(body)):
        segments[-1] = replace(segments[-1], cache_ttl=ttl)
    return make_prompt(segments, user_text, tools_answered=tools_answered)


def _read_user_texts(content: object) -> tuple[list[str], bool]:
    """Return the texts of a user's message, and True if it holds tool results, whose texts are not the user's."""
    if isinstance(content, str):
        return [content], False
    blocks = [as_object(block) for block in as_list(content)]
    if any(block.get("type") == "tool_result" for block in blocks):
        return [], True
    return [as_text(block.get("text")) for block in blocks if block.get("type") == "text"], False


def _read_blocks(content: object) -> list[Segment]:
    if isinstance(content, str):
        return [Segment(content)] if content else []
    segments: list[Segment] = []
    for block in map(as_object, as_list(content)):
        segments += _read_block(block)
        if segments and (ttl := _read_ttl(block)):
            segments[-1] = replace(segments[-1], cache_ttl=ttl)
    return segments


def _read_block(block: Mapping[str, object]) -> list[Segment]:
    match block.get("type"):
        case "text" | None:
            return [Segment(as_text(block.get("text")))]
        case "image":
            return [Segment(encode_text(block.get("source")), image=True)]
        # An empty result still counts as a segment, so that its breakpoint can mark it.
        case "tool_result":
            return _read_blocks(block.get("content")) or [Segment("")]
        case "tool_use":
            return [Segment(f"{as_text(block.get('name'))} {encode_text(block.get('input'))}")]
        case "thinking":
            return [Segment(as_text(block.get("thinking")))]
        case _:
            return [Segment(encode_text(_remove_breakpoint(block)))]


def _read_ttl(block: Mapping[str, object]) -> str | None:
    breakpoint_ = as_object(block.get("cache_control"))
    return as_text(breakpoint_.get("ttl"), "5m") if breakpoint_.get("type") == "ephemeral" else None


def _remove_breakpoint(block: Mapping[str, object]) -> dict[str, object]:
    """Return the block without its breakpoint: moving a breakpoint does not change the cached prefix."""
    return {key: value for key, value in block.items() if key != "cache_control"}
