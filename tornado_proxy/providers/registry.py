"""The providers of this installation.  Nothing outside a provider's folder names one but this file."""

from __future__ import annotations

from dataclasses import replace

from tornado_proxy.providers.anthropic.provider import ANTHROPIC
from tornado_proxy.providers.contract import Provider
from tornado_proxy.providers.openai.endpoints import openai_endpoints
from tornado_proxy.providers.openai.provider import OPENAI

#: Every provider with its default options.  The first also serves paths without a provider's prefix.
PROVIDERS: tuple[Provider, ...] = (OPENAI, ANTHROPIC)

PROVIDER_NAMES: tuple[str, ...] = tuple(provider.name for provider in PROVIDERS)


def load_providers(*, exact_speech: bool) -> tuple[Provider, ...]:
    """Return the providers with the options of a configuration.

    `exact_speech`: request usage from the provider if a speech response does not state it (openai/audio/speech.py).
    """
    return replace(OPENAI, endpoints=openai_endpoints(exact_speech=exact_speech)), ANTHROPIC
