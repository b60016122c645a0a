from __future__ import annotations

import pytest

from tornado_proxy.providers.openai.images.image_tokens import image_tokens


@pytest.mark.parametrize(
    ("size", "quality", "tokens"),
    [
        ("1024x1024", "low", 272),
        ("1024x1024", "medium", 1056),
        ("1024x1024", "high", 4160),
        ("1024x1536", "low", 408),
        ("1024x1536", "medium", 1584),
        ("1024x1536", "high", 6240),
        ("1536x1024", "low", 400),
        ("1536x1024", "medium", 1568),
        ("1536x1024", "high", 6208),
        ("2048x1024", "low", 544),
        ("1536x1024", "max", 6208),
        ("auto", "auto", 4160),
        (None, None, 4160),
        ("0x5", "low", 272),
    ],
)
def test_an_image_has_the_tokens_of_its_size_and_quality(size, quality, tokens):
    assert image_tokens(size, quality) == tokens
