"""The environment variables with which SDKs and tools reach a proxy instead of the providers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tornado_proxy.providers.registry import PROVIDERS

#: Variables that never reach a tool: those from which SDKs take a second credential, and the key that signs tokens.
LEFTOVERS = (
    *(name for provider in PROVIDERS for name in provider.sdk_variables.other_credentials),
    "MESHAGENT_API_KEY",
)


def sdk_variables(base_url: str, token: str) -> dict[str, str]:
    """Return the variables that the SDKs of all providers read.

    Args:
        base_url: The root URL of the proxy, without a final slash.
        token: The credential that clients send.
    """
    variables: dict[str, str] = {}
    for provider in PROVIDERS:
        names = provider.sdk_variables
        variables[names.base_url] = f"{base_url}/{provider.prefix}{names.base_path}"
        variables[names.api_key] = token
    return variables


def make_child_environment(
    inherited: Mapping[str, str], variables: Mapping[str, str], removed: Iterable[str]
) -> dict[str, str]:
    """Return the environment of a tool: what it inherits without `removed`, and `variables`."""
    dropped = {*LEFTOVERS, *removed}
    return {**{name: value for name, value in inherited.items() if name not in dropped}, **variables}
