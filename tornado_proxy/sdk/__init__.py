"""Helpers for programs that send their requests through the proxy (docs/sdk.md); needs `tornado-proxy[sdk]`.

Imports nothing else of tornado_proxy.  Each provider's SDK is imported when a name that needs it is first used, because
that takes some tenths of a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tornado_proxy.sdk.anthropic_adapter import AnthropicMessagesAdapter
    from tornado_proxy.sdk.anthropic_clients import get_anthropic_client, get_async_anthropic_client
    from tornado_proxy.sdk.http_logging import get_logging_http_client
    from tornado_proxy.sdk.openai_adapter import OpenAIResponsesAdapter
    from tornado_proxy.sdk.openai_clients import get_async_openai_client, get_openai_client

__all__ = [
    "AnthropicMessagesAdapter",
    "OpenAIResponsesAdapter",
    "get_anthropic_client",
    "get_async_anthropic_client",
    "get_async_openai_client",
    "get_logging_http_client",
    "get_openai_client",
]

_MODULES = {
    "AnthropicMessagesAdapter": "anthropic_adapter",
    "OpenAIResponsesAdapter": "openai_adapter",
    "get_anthropic_client": "anthropic_clients",
    "get_async_anthropic_client": "anthropic_clients",
    "get_async_openai_client": "openai_clients",
    "get_logging_http_client": "http_logging",
    "get_openai_client": "openai_clients",
}


def __getattr__(name: str) -> object:
    """Import the module of a public name when it is first used (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs the package {error.name}; pip install 'tornado-proxy[sdk]'") from error
