"""How much text was, when nobody says: a rule of thumb with a name, for answers that broke off before their usage.

Four bytes of UTF-8 make a token: about right for English prose, too few for code and for scripts whose characters take
three bytes, too many for runs of punctuation.  It is deterministic, needs no tokenizer, and every record that rests
on it says so.  What it cannot see: context that the provider keeps (an earlier response that is continued), reasoning
that was not shown, and that a picture in base64 costs fewer tokens than its bytes suggest.
"""

from __future__ import annotations

METHOD = "utf8_bytes_div_4"

_BYTES_PER_TOKEN = 4


def tokens_of(text_bytes: int) -> int:
    """Tokens of `text_bytes` bytes of text, rounded up."""
    return -(-text_bytes // _BYTES_PER_TOKEN)
