"""What the simulated providers remember of earlier prompts, and how it splits the input of the next one.

Entries never expire, so that figures depend on the requests alone; the oldest go when there are too many.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tornado_proxy.simulator.model.prompt import CACHE_MINIMUM, CACHE_STEP, Prompt

#: Remembered prefixes; a prompt of 100,000 tokens leaves about 800.
_CAPACITY = 100_000


@dataclass(frozen=True, slots=True)
class OpenAIInput:
    """`cached` and `written` are parts of `total`, as OpenAI counts."""

    total: int
    cached: int = 0
    written: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class AnthropicInput:
    """Disjoint parts, as Anthropic counts: `fresh` + `read` + `written_5m` + `written_1h` is the whole prompt."""

    fresh: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0


class PromptCache:
    """Prefixes seen, by model."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def split_openai(self, model: str, prompt: Prompt) -> OpenAIInput:
        """Automatic caching: the longest known prefix of 1024 + k * 128 tokens is cached, the rest becomes known.

        gpt-5.6 and later report (and charge) what they write; earlier models write without a word.
        """
        cached = 0
        for index in range(len(prompt.steps) - 1, -1, -1):
            if (model, prompt.steps[index]) in self._seen:
                cached = CACHE_MINIMUM + index * CACHE_STEP
                break
        cacheable = CACHE_MINIMUM + (len(prompt.steps) - 1) * CACHE_STEP if prompt.steps else 0
        for digest in prompt.steps:
            self._remember(model, digest)
        written = cacheable - cached if _reports_cache_writes(model) else 0
        return OpenAIInput(prompt.tokens, cached, written, prompt.image_tokens)

    def split_anthropic(self, model: str, prompt: Prompt) -> AnthropicInput:
        """Caching on request: the longest known marked prefix is read, later marked ones of 1024 tokens are written."""
        marked = [point for point in prompt.breakpoints if point.tokens >= CACHE_MINIMUM]
        read = max((point.tokens for point in marked if (model, point.digest) in self._seen), default=0)
        end, written = read, {"5m": 0, "1h": 0}
        for point in marked:
            if point.tokens > end:
                written["1h" if point.ttl == "1h" else "5m"] += point.tokens - end
                end = point.tokens
            self._remember(model, point.digest)
        return AnthropicInput(prompt.tokens - end, read, written["5m"], written["1h"])

    def _remember(self, model: str, digest: bytes) -> None:
        self._seen[(model, digest)] = None
        self._seen.move_to_end((model, digest))
        if len(self._seen) > _CAPACITY:
            self._seen.popitem(last=False)


def _reports_cache_writes(model: str) -> bool:
    return model.startswith(("gpt-5.6", "gpt-6"))
