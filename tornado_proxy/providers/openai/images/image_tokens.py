"""Tokens of a picture by its size and quality, for answers that do not state them.

Source: OpenAI image generation guide, "Cost and latency", the table of gpt-image-1.
"""

from __future__ import annotations

import math
import re

ESTIMATE_METHOD = "image_size_and_quality"

#: Output tokens of one 1024x1024 picture by quality; other qualities ("auto" too) are taken for high.
_SQUARE_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
_SQUARE = 1024 * 1024

#: The table has these below what their area comes to.
_LANDSCAPE = "1536x1024"
_LANDSCAPE_TOKENS = {"low": 400, "medium": 1568, "high": 6208}


def image_tokens(size: str | None, quality: str | None) -> int:
    """Output tokens of one picture; sizes that the table does not have go by their area, one not stated is square."""
    tokens = _LANDSCAPE_TOKENS if size == _LANDSCAPE else _SQUARE_TOKENS
    square = tokens.get(quality or "", tokens["high"])
    return square if size == _LANDSCAPE else math.ceil(square * _area(size) / _SQUARE)


def _area(size: str | None) -> int:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size or "")
    return _SQUARE if match is None else int(match[1]) * int(match[2])
