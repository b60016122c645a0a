"""Prompts of Anthropic's Messages API: tools, system, messages, with the cache breakpoints that stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tornado_proxy.simulator.json_values import as_list, as_object, as_text, encode_text
from tornado_proxy.simulator.model.prompt import Prompt, Segment, make_prompt


def messages_prompt(body: Mapping[str, object]) -> Prompt:
    """The prompt of a message.  The order is the one in which prefixes are cached (prompt caching guide).

    A `cache_control` of the body itself marks the last block, as automatic caching does.
    """
    segments = [
        Segment(encode_text(_without_mark(as_object(tool))), cache_ttl=_ttl(as_object(tool)))
        for tool in as_list(body.get("tools"))
    ]
    segments += _block_segments(body.get("system"))
    user_text, answered = "", False
    for message in map(as_object, as_list(body.get("messages"))):
        content = message.get("content")
        segments += _block_segments(content)
        if message.get("role") != "user":
            continue
        texts, results = _user_texts(content)
        if texts:
            user_text = "\n".join(texts)
        answered = results
    if segments and (ttl := _ttl(body)):
        segments[-1] = replace(segments[-1], cache_ttl=ttl)
    return make_prompt(segments, user_text, tools_answered=answered)


def _user_texts(content: object) -> tuple[list[str], bool]:
    """The texts of a user's message, and whether it brings tool results, whose texts are not what the user said."""
    if isinstance(content, str):
        return [content], False
    blocks = [as_object(block) for block in as_list(content)]
    if any(block.get("type") == "tool_result" for block in blocks):
        return [], True
    return [as_text(block.get("text")) for block in blocks if block.get("type") == "text"], False


def _block_segments(content: object) -> list[Segment]:
    if isinstance(content, str):
        return [Segment(content)] if content else []
    segments: list[Segment] = []
    for block in map(as_object, as_list(content)):
        segments += _one_block(block)
        if segments and (ttl := _ttl(block)):
            segments[-1] = replace(segments[-1], cache_ttl=ttl)
    return segments


def _one_block(block: Mapping[str, object]) -> list[Segment]:
    match block.get("type"):
        case "text" | None:
            return [Segment(as_text(block.get("text")))]
        case "image":
            return [Segment(encode_text(block.get("source")), image=True)]
        case "tool_result":
            return _block_segments(block.get("content")) or [Segment("")]
        case "tool_use":
            return [Segment(f"{as_text(block.get('name'))} {encode_text(block.get('input'))}")]
        case "thinking":
            return [Segment(as_text(block.get("thinking")))]
        case _:
            return [Segment(encode_text(_without_mark(block)))]


def _ttl(marked: Mapping[str, object]) -> str | None:
    mark = as_object(marked.get("cache_control"))
    return as_text(mark.get("ttl"), "5m") if mark.get("type") == "ephemeral" else None


def _without_mark(block: Mapping[str, object]) -> dict[str, object]:
    """The block as the model reads it: where a breakpoint stands does not change what the prefix is."""
    return {key: value for key, value in block.items() if key != "cache_control"}
