"""The output of the simulated model: text of a known length, tool calls or a refusal.

The same request always gets the same output, so that tests can state every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from tornado_proxy.simulator.json_values import encode
from tornado_proxy.simulator.model.directives import Directives, ToolCall
from tornado_proxy.simulator.model.tokens import count_tokens, split_pieces

#: Tokens of an output whose length neither a directive nor a limit sets.
DEFAULT_OUTPUT_TOKENS = 24
REFUSAL_TEXT = "I'm sorry, but I can't help with that."

_TEXT = "The stand-in answers with words that it counts one by one, so that every figure can be checked by hand. "
_TEXT_CYCLE = split_pieces(" " + _TEXT.rstrip())
_THOUGHT_CYCLE = split_pieces(" Let me think about it, step by step, before I say anything.")
#: A piece of a large output.  4 KB in one delta: one token per delta would make an output of 1 MB 140,000 events.
_FILLER = "filler " * 585

#: Characters of a delta of tool arguments: short ones let tests read arguments that are split inside a JSON string.
_ARGUMENT_DELTA_CHARACTERS = 8


class Finish(Enum):
    """Why the output ends."""

    STOP = auto()
    LENGTH = auto()
    TOOLS = auto()
    REFUSAL = auto()


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """An output.

    Attributes:
        pieces: the text, in pieces of one delta each.
        text_tokens: tokens of the text alone.
        thoughts: reasoning or thinking, in pieces of one token and one delta each.
    """

    pieces: tuple[str, ...] = ()
    text_tokens: int = 0
    thoughts: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = Finish.STOP

    @property
    def text(self) -> str:
        """The text of all pieces."""
        return "".join(self.pieces)

    @property
    def thought_tokens(self) -> int:
        """The number of tokens of reasoning or thinking."""
        return len(self.thoughts)

    @property
    def tokens(self) -> int:
        """The number of all output tokens: text, thoughts, and the names and arguments of tool calls."""
        return self.text_tokens + len(self.thoughts) + sum(_call_tokens(call) for call in self.tool_calls)


def plan_output(
    directives: Directives,
    *,
    limit: int | None = None,
    thoughts: int = 0,
    credential: str = "",
    structured_text: str | None = None,
) -> ModelOutput:
    """Return the output for a request.

    Args:
        directives: the directives of the prompt.
        limit: the request's maximum of output tokens, thoughts included.
        thoughts: tokens that the model thinks with if the limit allows it.
        credential: the text of the output for `echo-secret`.
        structured_text: the text of the output for a request for structured output.
    """
    if directives.refuse:
        pieces = split_pieces(REFUSAL_TEXT)
        return ModelOutput(pieces, len(pieces), finish=Finish.REFUSAL)
    thinking = _repeat_pieces(_THOUGHT_CYCLE, thoughts if limit is None else min(thoughts, limit))
    # Tools come before text and limits: agents need their tool call whatever `max_tokens` they send.
    if directives.tools:
        return ModelOutput(thoughts=thinking, tool_calls=directives.tools, finish=Finish.TOOLS)
    pieces = _split_text(directives, credential, structured_text)
    # `bytes` exceeds every limit on purpose: it is for tests of large bodies.
    if directives.size:
        return ModelOutput(pieces, sum(count_tokens(piece) for piece in pieces), thinking)
    text_limit = None if limit is None else max(0, limit - len(thinking))
    if text_limit is not None and len(pieces) > text_limit:
        return ModelOutput(pieces[:text_limit], text_limit, thinking, finish=Finish.LENGTH)
    return ModelOutput(pieces, len(pieces), thinking)


def _split_text(directives: Directives, credential: str, structured_text: str | None) -> tuple[str, ...]:
    if directives.echo_secret:
        return split_pieces(credential)
    if directives.say is not None:
        return split_pieces(directives.say)
    if directives.size:
        count, rest = divmod(directives.size, len(_FILLER))
        return (_FILLER,) * count + ((_FILLER[:rest],) if rest else ())
    if structured_text is not None:
        return split_pieces(structured_text)
    return _repeat_pieces(_TEXT_CYCLE, DEFAULT_OUTPUT_TOKENS if directives.tokens is None else directives.tokens)


@lru_cache(maxsize=256)
def _repeat_pieces(cycle: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return `count` pieces of the repeated `cycle`, the first without its leading blank."""
    pieces = (cycle * (count // len(cycle) + 1))[:count]
    return (pieces[0].lstrip(), *pieces[1:]) if pieces else ()


def _call_tokens(call: ToolCall) -> int:
    return count_tokens(call.name) + count_tokens(call.arguments)


@lru_cache(maxsize=1024)
def encode_piece(piece: str) -> bytes:
    """Return `piece` as a JSON string.

    Most pieces are words of one cycle, so the cache saves streams almost all encoding.
    """
    return encode(piece)


def split_arguments(arguments: str) -> list[str]:
    """Split tool arguments into deltas of a few characters, as providers stream them; at least one delta."""
    size = _ARGUMENT_DELTA_CHARACTERS
    return [arguments[start : start + size] for start in range(0, len(arguments), size)] or [""]
