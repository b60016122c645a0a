"""Makes the commands of tools that go through a local proxy, without changing a file of the tool.

No secret is in their arguments, which every user of the machine can read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tornado_proxy.local.environment import sdk_variables

#: The variable with the bearer of the local proxy.
BEARER_VARIABLE = "TORNADO_PROXY_BEARER"


@dataclass(frozen=True, slots=True)
class ToolCommand:
    """A tool to run: its arguments, its program first, and the variables that it needs."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str]


def _codex(variables: Mapping[str, str], arguments: Sequence[str]) -> ToolCommand:
    """Return the command of Codex CLI: options win over its configuration file (Codex documentation, "Config")."""
    base_url = json.dumps(variables["OPENAI_BASE_URL"])
    provider = f'{{name="tornado-proxy",base_url={base_url},env_key="{BEARER_VARIABLE}",wire_api="responses"}}'
    options = ("-c", 'model_provider="tornado-proxy"', "-c", f"model_providers.tornado-proxy={provider}")
    return ToolCommand(("codex", *options, *arguments), variables)


def _claude(variables: Mapping[str, str], arguments: Sequence[str]) -> ToolCommand:
    """Return the command of Claude Code: --settings wins over its settings files (Claude Code docs, "Settings").

    With apiKeyHelper it asks no question about a key that it does not know.
    """
    settings = {
        "env": {"ANTHROPIC_BASE_URL": variables["ANTHROPIC_BASE_URL"]},
        "apiKeyHelper": f"printenv {BEARER_VARIABLE}",
    }
    rest = {name: value for name, value in variables.items() if name != "ANTHROPIC_API_KEY"}
    return ToolCommand(("claude", "--settings", json.dumps(settings), *arguments), rest)


#: Tool -> its command, from the variables of the SDKs and the person's own arguments.
TOOLS: Mapping[str, Callable[[Mapping[str, str], Sequence[str]], ToolCommand]] = {"codex": _codex, "claude": _claude}


def make_tool_command(tool: str, base_url: str, credential: str, arguments: Sequence[str]) -> ToolCommand:
    """Return the command of one of TOOLS through the local proxy at `base_url`."""
    variables = {**sdk_variables(base_url, credential), BEARER_VARIABLE: credential}
    return TOOLS[tool](variables, arguments)
