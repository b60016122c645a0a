"""Finds the limits of the work that a message request can cause.

Source: Anthropic API reference, "Create a message"; "Web search tool", `max_uses`; "Tool use overview", client and
server tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tornado_proxy.domain.request import WorkLimits, limit_work
from tornado_proxy.providers.shared.json_body import is_text_only, read_limit, read_list
from tornado_proxy.providers.shared.json_values import as_text

#: The start of the types of tools that Anthropic defines and the client runs; their dates follow.
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")

#: Types of content whose tokens are not in the body as text.
_OPAQUE_CONTENT = (b"image", b"document", b"file", b"container_upload", b"encrypted_content")


def read_work(members: Mapping[str, Any], body: bytes) -> WorkLimits:
    """Return the limits that the request `body` sets, whose members have been read.

    `max_tokens` limits one turn of the model; a tool that runs at the provider is followed by one more.
    """
    return limit_work(
        read_limit(members, "max_tokens"),
        _read_tool_calls(members),
        1,
        is_text_only(body, _OPAQUE_CONTENT, partial(_list_schemas, members)) and not _continues_thread(members),
        not isinstance(members.get("fallbacks"), str),
    )


def _continues_thread(members: Mapping[str, Any]) -> bool:
    """Return True if the provider adds the earlier turns to the input."""
    thread = members.get("thread")
    return isinstance(thread, dict) and thread.get("type") != "create"


def _read_tool_calls(members: Mapping[str, Any]) -> int | None:
    """Return the calls of server tools at most, 0 without such tools, None if one of them has no limit."""
    if "mcp_servers" in members:
        return None
    tools = [tool for tool in read_list(members, "tools") if isinstance(tool, dict) and _runs_at_provider(tool)]
    uses = [read_limit(tool, "max_uses") for tool in tools]
    return None if None in uses else sum(count for count in uses if count is not None)


def _list_schemas(members: Mapping[str, Any]) -> list[object]:
    """Return the schemas of the tools that the client runs."""
    tools = [tool for tool in read_list(members, "tools") if isinstance(tool, dict)]
    return [tool.get("input_schema") for tool in tools if not _runs_at_provider(tool)]


def _runs_at_provider(tool: Mapping[str, Any]) -> bool:
    kind = as_text(tool.get("type"))
    return kind is not None and kind != "custom" and not kind.startswith(_CLIENT_TOOLS)
