"""Estimates the output tokens of an image by its model, size and quality, for responses that do not state them.

    gpt-image-1, -1-mini, -1.5   a table of three sizes; other sizes count by their area
    gpt-image-2 and later        tokens grow with the area and shrink with the aspect ratio, so a larger image can have
                                 fewer

Source: OpenAI guide "Image generation", "Cost and latency", the table of gpt-image-1 and the calculator of gpt-image-2;
its rule was published in the OpenAI developer community, "gpt-image-2 output pricing calculator" (2026-06-05), and
agrees with a recorded response: 1254x1254 in medium quality, 2,058 tokens.
"""

from __future__ import annotations

import math
import re

ESTIMATE_METHOD = "image_size_and_quality"

#: The models of the table; every other model counts by the rule of gpt-image-2.
_TABLE_MODEL = re.compile(r"gpt-image-1(?:\.5|-mini)?(?:-\d{4}-\d{2}-\d{2})?")

#: Output tokens of one 1024x1024 image by quality (same table).  Any other quality, "auto" too, counts as high.
_SQUARE_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
_SQUARE_SIDE = 1024
_SQUARE_PIXELS = _SQUARE_SIDE * _SQUARE_SIDE

#: The only size in the table whose tokens are not proportional to its area: they are fewer.
_LANDSCAPE = (1536, 1024)
_LANDSCAPE_TOKENS = {"low": 400, "medium": 1568, "high": 6208}

#: The rule of gpt-image-2: an image has this many tokens along its longer side at a base area, fewer along the other.
#: Qualities above high (gpt-image-2.5) have no published number and count as high.
_AXIS_TOKENS = {"low": 16, "medium": 48, "high": 96}
_AREA_OFFSET, _AREA_SCALE = 2_000_000, 4_000_000


def image_tokens(model: str | None, size: str | None, quality: str | None) -> int:
    """Return the output tokens of one image.  A size that is missing or "auto" counts as 1024x1024."""
    width, height = _read_size(size)
    if model is not None and _TABLE_MODEL.fullmatch(model):
        return _tokens_by_table(width, height, quality or "")
    return _tokens_by_rule(width, height, quality or "")


def _tokens_by_table(width: int, height: int, quality: str) -> int:
    if (width, height) == _LANDSCAPE:
        return _LANDSCAPE_TOKENS.get(quality, _LANDSCAPE_TOKENS["high"])
    return math.ceil(_SQUARE_TOKENS.get(quality, _SQUARE_TOKENS["high"]) * width * height / _SQUARE_PIXELS)


def _tokens_by_rule(width: int, height: int, quality: str) -> int:
    longer, shorter = max(width, height), min(width, height)
    axis = _AXIS_TOKENS.get(quality, _AXIS_TOKENS["high"])
    # Integers throughout: rounded half up here, and up in the result, as the calculator does.
    short_axis = (2 * axis * shorter + longer) // (2 * longer)
    return -(-axis * short_axis * (_AREA_OFFSET + width * height) // _AREA_SCALE)


def _read_size(size: str | None) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size or "")
    return (_SQUARE_SIDE, _SQUARE_SIDE) if match is None else (int(match[1]), int(match[2]))
