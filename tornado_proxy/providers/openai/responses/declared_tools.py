"""The tools that a request declares and its response echoes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tornado_proxy.providers.shared.json_values import as_objects

#: `web_search_preview_2025_03_11` is `web_search_preview`: a tool's price does not depend on its date.
_DATE_SUFFIX = re.compile(r"_\d{4}_\d{2}_\d{2}$")


#: Tools that the client runs: their results come with its next request (OpenAI API reference, responses `tools`).  A
#: namespace only holds others, and a search for tools adds their declarations to the output.
CLIENT_TOOLS = frozenset(
    {"function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview", "namespace"}
)


def tool_kind(tool: Mapping[str, object]) -> str:
    """Return the type of a tool without its date."""
    return _DATE_SUFFIX.sub("", str(tool.get("type")))


def flatten_tools(tools: Iterable[object]) -> tuple[Mapping[str, object], ...]:
    """Return the tools of a list and those that they contain: a namespace has tools of its own."""
    # An object without a type declares nothing.  Thousands of them fit into a small body, and responses repeat them.
    flat: list[Mapping[str, object]] = [
        tool for tool in tools if isinstance(tool, dict) and ("type" in tool or "tools" in tool)
    ]
    for tool in flat:  # which grows meanwhile; taking tools from its front would be quadratic
        flat += as_objects(tool.get("tools"))
    return tuple(flat)
