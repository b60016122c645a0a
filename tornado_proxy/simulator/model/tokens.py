"""The simulator's tokenizer: simple enough to count by hand, so that tests can state the expected figures.

A token is a run of letters, digits and underscores, or any other single character that is not white space.
"Say this, please." has five tokens.  Roles, ids and white space do not count; an image counts `IMAGE_TOKENS`.
"""

from __future__ import annotations

import re

#: Tokens of an image in a prompt, independent of its size.
IMAGE_TOKENS = 85

_TOKEN = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\s*\w+|\s*[^\w\s]|\s+\Z")


def split_tokens(text: str) -> list[str]:
    """Return the tokens of `text`, without the white space between them."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """Return the number of tokens of `text`."""
    return len(_TOKEN.findall(text))


def split_pieces(text: str) -> tuple[str, ...]:
    """Split `text` into pieces of one token each; white space belongs to the next token, so joined they are `text`."""
    return tuple(_PIECE.findall(text))
