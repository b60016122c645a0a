"""Lists the providers.

To add a provider, write its folder and add it to PROVIDERS; nothing else in the program names one.
"""

from __future__ import annotations

from tornado_proxy.providers.anthropic.provider import ANTHROPIC
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.openai.provider import OPENAI

#: Every provider, with default options.  Paths without the prefix of a provider belong to the first.
PROVIDERS: tuple[Provider, ...] = (
    OPENAI,
    ANTHROPIC,
)

PROVIDER_NAMES: tuple[str, ...] = tuple(provider.name for provider in PROVIDERS)


def list_priced_paths() -> frozenset[str]:
    """Return the endpoints that price files can name."""
    return frozenset(path for provider in PROVIDERS for path in provider.priced_paths)
