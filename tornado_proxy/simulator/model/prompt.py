"""A prompt, whatever API it came through: pieces of text in order, what they count, and what the user said last."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from tornado_proxy.simulator.model.tokens import IMAGE_TOKENS, split_tokens

#: OpenAI caches prompts from this many tokens on, in steps of `CACHE_STEP` (prompt caching guide).
CACHE_MINIMUM = 1024
CACHE_STEP = 128


@dataclass(frozen=True, slots=True)
class Segment:
    """One text of the prompt.  `cache_ttl` ("5m", "1h") marks the end of a prefix that Anthropic is asked to cache."""

    text: str
    image: bool = False
    cache_ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A prefix to be cached: its fingerprint, its length in tokens and how long it is to live."""

    digest: bytes
    tokens: int
    ttl: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """`user_text` is the last text of the user; `tools_answered` says that tool results came after it.

    `steps` are fingerprints of the prefixes of 1024, 1152, 1280 ... tokens; `breakpoints` those the caller marked.
    """

    segments: tuple[Segment, ...]
    tokens: int
    image_tokens: int
    user_text: str
    tools_answered: bool
    steps: tuple[bytes, ...]
    breakpoints: tuple[Breakpoint, ...]
    preamble: int

    @property
    def conversation(self) -> tuple[Segment, ...]:
        """The turns alone, without the tools and instructions that each request states anew."""
        return self.segments[self.preamble :]


def make_prompt(segments: list[Segment], user_text: str, *, tools_answered: bool = False, preamble: int = 0) -> Prompt:
    """Count and fingerprint the segments; the first `preamble` of them are tools and instructions."""
    running = blake2b(digest_size=16)
    tokens: list[str] = []
    breakpoints: list[Breakpoint] = []
    for segment in segments:
        part = [segment.text] * IMAGE_TOKENS if segment.image else split_tokens(segment.text)
        tokens += part
        if segment.cache_ttl is None:
            continue
        running.update("\0".join(tokens[breakpoints[-1].tokens if breakpoints else 0 :]).encode(errors="replace"))
        breakpoints.append(Breakpoint(running.digest(), len(tokens), segment.cache_ttl))
    return Prompt(
        segments=tuple(segments),
        tokens=max(1, len(tokens)),
        image_tokens=IMAGE_TOKENS * sum(segment.image for segment in segments),
        user_text=user_text,
        tools_answered=tools_answered,
        steps=_steps(tokens),
        breakpoints=tuple(breakpoints),
        preamble=preamble,
    )


def _steps(tokens: list[str]) -> tuple[bytes, ...]:
    if len(tokens) < CACHE_MINIMUM:
        return ()
    running = blake2b(digest_size=16)
    digests = []
    for end in range(CACHE_STEP, len(tokens) + 1, CACHE_STEP):
        running.update("\0".join(tokens[end - CACHE_STEP : end]).encode(errors="replace"))
        if end >= CACHE_MINIMUM:
            digests.append(running.digest())
    return tuple(digests)
