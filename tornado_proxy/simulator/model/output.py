"""What is answered: a text of known length, tool calls or a refusal, the same each time for the same request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from tornado_proxy.simulator.json_values import encode
from tornado_proxy.simulator.model.directives import Directives, ToolCall
from tornado_proxy.simulator.model.tokens import count_tokens, split_pieces

#: Tokens of an answer when the prompt does not say.
DEFAULT_TOKENS = 24
REFUSAL_TEXT = "I'm sorry, but I can't help with that."

_TEXT = "The stand-in answers with words that it counts one by one, so that every figure can be checked by hand. "
_CYCLE = split_pieces(" " + _TEXT.rstrip())
_THOUGHT = split_pieces(" Let me think about it, step by step, before I say anything.")
_FILLER = "filler " * 585
#: Characters of one piece of a large body.
_FILLER_PIECE = len(_FILLER)


class Finish(Enum):
    """Why the answer ends."""

    STOP = auto()
    LENGTH = auto()
    TOOLS = auto()
    REFUSAL = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """`pieces` are sent as one delta each and joined are the text; `thoughts` likewise.  Token counts are disjoint."""

    pieces: tuple[str, ...] = ()
    text_tokens: int = 0
    thoughts: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    finish: Finish = Finish.STOP

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def thought_tokens(self) -> int:
        """Tokens of reasoning or thinking."""
        return len(self.thoughts)

    @property
    def tokens(self) -> int:
        """All output tokens: text, thoughts, and the names and arguments of tool calls."""
        return self.text_tokens + len(self.thoughts) + sum(_call_tokens(call) for call in self.calls)


def plan_answer(
    directives: Directives, *, limit: int | None = None, thoughts: int = 0, secret: str = "", text: str | None = None
) -> Answer:
    """The answer that the directives ask for.

    `limit` is the request's maximum of output tokens, thoughts included; `thoughts` how many the model would think.
    `secret` is what an `echo-secret` shows; `text` is what a request for structured output must get.
    """
    if directives.refuse:
        pieces = split_pieces(REFUSAL_TEXT)
        return Answer(pieces, len(pieces), finish=Finish.REFUSAL)
    thinking = _words(_THOUGHT, thoughts if limit is None else min(thoughts, limit))
    if directives.tools:
        return Answer(thoughts=thinking, calls=directives.tools, finish=Finish.TOOLS)
    pieces = _pieces(directives, secret, text)
    if directives.size:
        return Answer(pieces, sum(count_tokens(piece) for piece in pieces), thinking)
    room = None if limit is None else max(0, limit - len(thinking))
    if room is not None and len(pieces) > room:
        return Answer(pieces[:room], room, thinking, finish=Finish.LENGTH)
    return Answer(pieces, len(pieces), thinking)


def _pieces(directives: Directives, secret: str, text: str | None) -> tuple[str, ...]:
    if directives.echo_secret:
        return split_pieces(secret)
    if directives.say is not None:
        return split_pieces(directives.say)
    if directives.size:
        whole, rest = divmod(directives.size, _FILLER_PIECE)
        return (_FILLER,) * whole + ((_FILLER[:rest],) if rest else ())
    if text is not None:
        return split_pieces(text)
    return _words(_CYCLE, DEFAULT_TOKENS if directives.tokens is None else directives.tokens)


@lru_cache(maxsize=256)
def _words(cycle: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` pieces, going round in `cycle`; the first one without its blank."""
    words = (cycle * (count // len(cycle) + 1))[:count]
    return (words[0].lstrip(), *words[1:]) if words else ()


def _call_tokens(call: ToolCall) -> int:
    return count_tokens(call.name) + count_tokens(call.arguments)


@lru_cache(maxsize=1024)
def piece_json(piece: str) -> bytes:
    """`piece` as a JSON string: most pieces come from a small vocabulary, so that streams need no encoder."""
    return encode(piece)


def argument_pieces(arguments: str) -> list[str]:
    """Tool arguments cut as a provider streams them: a few characters at a time."""
    return [arguments[start : start + 8] for start in range(0, len(arguments), 8)] or [""]
