"""The simulator's tokens: simple enough to count by hand, so that tests can type the figures they expect.

The rule: a token is a run of letters, digits and underscores, or any one other character that is not white space.
"Say this, please." has five tokens.  Roles, ids and white space count nothing; an image counts `IMAGE_TOKENS`.
"""

from __future__ import annotations

import re

#: Tokens of one picture in a prompt, whatever its size.
IMAGE_TOKENS = 85

_TOKEN = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\s*\w+|\s*[^\w\s]|\s+\Z")


def split_tokens(text: str) -> list[str]:
    """The tokens of `text`, without the white space between them."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """How many tokens `text` has."""
    return len(_TOKEN.findall(text))


def split_pieces(text: str) -> tuple[str, ...]:
    """`text` cut in pieces of one token each; white space goes with the token that follows, joined they are `text`."""
    return tuple(_PIECE.findall(text))
