"""Estimates the output tokens of an image by its size and quality, for responses that do not state them.

Source: OpenAI guide "Image generation", "Cost and latency", the table of gpt-image-1.
"""

from __future__ import annotations

import math
import re

ESTIMATE_METHOD = "image_size_and_quality"

#: Output tokens of one 1024x1024 image by quality (same table).  Any other quality, "auto" too, counts as high.
_SQUARE_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
_SQUARE_PIXELS = 1024 * 1024

#: The only size in the table whose tokens are not proportional to its area: they are fewer.
_LANDSCAPE = "1536x1024"
_LANDSCAPE_TOKENS = {"low": 400, "medium": 1568, "high": 6208}


def image_tokens(size: str | None, quality: str | None) -> int:
    """Return the output tokens of one image.

    A size outside the table counts by its area.  A size that is missing or "auto" counts as 1024x1024.
    """
    table = _LANDSCAPE_TOKENS if size == _LANDSCAPE else _SQUARE_TOKENS
    tokens = table.get(quality or "", table["high"])
    return tokens if size == _LANDSCAPE else math.ceil(tokens * _count_pixels(size) / _SQUARE_PIXELS)


def _count_pixels(size: str | None) -> int:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size or "")
    return _SQUARE_PIXELS if match is None else int(match[1]) * int(match[2])
