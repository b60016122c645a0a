"""The simulated prompt caches: they split a prompt's tokens into cached, written and other ones.

Entries never expire, so the figures depend on the requests alone; the oldest are dropped beyond a limit.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tornado_proxy.simulator.model.prompt import CACHE_STEP_TOKENS, MIN_CACHED_TOKENS, Prompt

#: Prefixes in the cache; a prompt of 100,000 tokens adds about 800.
MAX_PREFIXES = 100_000


@dataclass(frozen=True, slots=True)
class OpenAIInputTokens:
    """Input tokens as OpenAI counts them: `cached`, `written` and `images` are parts of `total`."""

    total: int
    cached: int = 0
    written: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class AnthropicInputTokens:
    """Input tokens as Anthropic counts them: four disjoint parts, whose sum is the prompt."""

    fresh: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0


class PromptCache:
    """The prefixes of earlier prompts, by model."""

    def __init__(self) -> None:
        self._prefixes: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def split_openai(self, model: str, prompt: Prompt) -> OpenAIInputTokens:
        """Apply automatic caching and return the split: the longest known prefix of 1024 + k * 128 tokens is cached.

        gpt-5.6 and later report and charge the tokens that they write to the cache; earlier models do not.

        Source: OpenAI's prompt caching guide.
        """
        cached = 0
        for index in range(len(prompt.steps) - 1, -1, -1):
            if (model, prompt.steps[index]) in self._prefixes:
                cached = MIN_CACHED_TOKENS + index * CACHE_STEP_TOKENS
                break
        cacheable = MIN_CACHED_TOKENS + (len(prompt.steps) - 1) * CACHE_STEP_TOKENS if prompt.steps else 0
        # All prefixes become known, not only the longest: a later prompt may share any of them.
        for digest in prompt.steps:
            self._remember(model, digest)
        written = cacheable - cached if _reports_cache_writes(model) else 0
        return OpenAIInputTokens(prompt.tokens, cached, written, prompt.image_tokens)

    def split_anthropic(self, model: str, prompt: Prompt) -> AnthropicInputTokens:
        """Apply caching on request and return the split.

        The longest known prefix that ends at a mark is read from the cache, longer ones are written to it.
        Prefixes of fewer than 1024 tokens are not cached.

        Source: Anthropic's prompt caching guide.
        """
        marked = [point for point in prompt.breakpoints if point.tokens >= MIN_CACHED_TOKENS]
        read = max((point.tokens for point in marked if (model, point.digest) in self._prefixes), default=0)
        end, written = read, {"5m": 0, "1h": 0}
        for point in marked:
            # Each mark writes only the tokens after the previous one, at its own lifetime and price.
            if point.tokens > end:
                written["1h" if point.ttl == "1h" else "5m"] += point.tokens - end
                end = point.tokens
            self._remember(model, point.digest)
        return AnthropicInputTokens(prompt.tokens - end, read, written["5m"], written["1h"])

    def _remember(self, model: str, digest: bytes) -> None:
        self._prefixes[(model, digest)] = None
        self._prefixes.move_to_end((model, digest))
        if len(self._prefixes) > MAX_PREFIXES:
            self._prefixes.popitem(last=False)


def _reports_cache_writes(model: str) -> bool:
    return model.startswith(("gpt-5.6", "gpt-6"))
