"""A prompt in a form common to all APIs: ordered texts, their tokens, and the user's last text."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from tornado_proxy.simulator.model.tokens import IMAGE_TOKENS, split_tokens

#: Tokens of the shortest prefix that is cached, and the step of longer ones (OpenAI's prompt caching guide).
MIN_CACHED_TOKENS = 1024
CACHE_STEP_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Segment:
    """A text of the prompt.  `cache_ttl` ("5m", "1h") marks the end of a prefix that Anthropic is to cache."""

    text: str
    image: bool = False
    cache_ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """The end of a prefix to cache: the prefix's digest, its length in tokens and its lifetime."""

    digest: bytes
    tokens: int
    ttl: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that is counted and digested.

    Attributes:
        segments: its texts, in the order in which the model reads them.
        tokens: all tokens, at least 1; `image_tokens` is a part of them.
        user_text: the last text of the user, which may hold directives.
        tools_answered: True if tool results follow `user_text`.
        steps: digests of the prefixes of 1024, 1152, 1280 ... tokens.
        breakpoints: the prefixes that the client marked.
        preamble: the number of leading segments that are tools and instructions.
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
        """The turns, without the tools and instructions that each request has to repeat."""
        return self.segments[self.preamble :]


def make_prompt(segments: list[Segment], user_text: str, *, tools_answered: bool = False, preamble: int = 0) -> Prompt:
    """Return the prompt of `segments`; the first `preamble` of them are tools and instructions."""
    running = blake2b(digest_size=16)
    tokens: list[str] = []
    breakpoints: list[Breakpoint] = []
    for segment in segments:
        part = [segment.text] * IMAGE_TOKENS if segment.image else split_tokens(segment.text)
        tokens += part
        if segment.cache_ttl is None:
            continue
        # One running digest makes the prefix of each breakpoint cost only its new tokens.
        running.update("\0".join(tokens[breakpoints[-1].tokens if breakpoints else 0 :]).encode(errors="replace"))
        breakpoints.append(Breakpoint(running.digest(), len(tokens), segment.cache_ttl))
    return Prompt(
        segments=tuple(segments),
        # At least 1, so that no request is free (docs/simulator.md).
        tokens=max(1, len(tokens)),
        image_tokens=IMAGE_TOKENS * sum(segment.image for segment in segments),
        user_text=user_text,
        tools_answered=tools_answered,
        steps=_digest_steps(tokens),
        breakpoints=tuple(breakpoints),
        preamble=preamble,
    )


def _digest_steps(tokens: list[str]) -> tuple[bytes, ...]:
    if len(tokens) < MIN_CACHED_TOKENS:
        return ()
    running = blake2b(digest_size=16)
    digests = []
    for end in range(CACHE_STEP_TOKENS, len(tokens) + 1, CACHE_STEP_TOKENS):
        running.update("\0".join(tokens[end - CACHE_STEP_TOKENS : end]).encode(errors="replace"))
        if end >= MIN_CACHED_TOKENS:
            digests.append(running.digest())
    return tuple(digests)
