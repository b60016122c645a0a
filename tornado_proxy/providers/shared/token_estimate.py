"""Estimates tokens from the length of text, for responses that broke off before they stated usage.

Four bytes of UTF-8 count as a token.  That is about right for English prose, too few tokens for code and for scripts
whose characters take three bytes, too many for runs of punctuation.  The rule is deterministic and needs no tokenizer;
every record that uses it names it.  It does not see context that the provider stores (a continued response), reasoning
that is not shown, or that an image in base64 costs fewer tokens than its bytes.
"""

from __future__ import annotations

METHOD = "utf8_bytes_div_4"

_BYTES_PER_TOKEN = 4


def estimate_tokens(text_bytes: int) -> int:
    """Return the estimated tokens of `text_bytes` bytes of text, rounded up."""
    return -(-text_bytes // _BYTES_PER_TOKEN)


def estimate_output(text_bytes: int, limit: int | None, stated: int = 0) -> int:
    """Return the estimated output tokens of a response.

    Args:
        text_bytes: The length of its text, or of the part that `stated` does not count.
        limit: The output tokens that the request allows, which no provider exceeds; None if it sets no limit.
        stated: The output tokens that the response has stated so far.
    """
    estimate = stated + estimate_tokens(text_bytes)
    return estimate if limit is None else max(stated, min(estimate, limit))
