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
    assert image_tokens("gpt-image-1", size, quality) == tokens


@pytest.mark.parametrize(
    ("model", "size", "quality", "tokens"),
    [
        pytest.param("gpt-image-2", "1254x1254", "medium", 2058, id="as recorded"),
        pytest.param("gpt-image-2-2026-04-21", "1024x1024", "high", 7024, id="the calculator's square"),
        pytest.param("gpt-image-2", "1536x1024", "high", 5488, id="wider, and fewer tokens"),
        pytest.param("gpt-image-2", "1024x1536", None, 5488, id="upright, quality left to the provider"),
        pytest.param("gpt-image-2", "3584x2048", "high", 12329, id="large"),
        pytest.param("gpt-image-2.5-flare", "1024x1024", "low", 196, id="a later model"),
        pytest.param("gpt-image-1.5-2025-12-16", "1024x1024", "high", 4160, id="a dated model of the table"),
        pytest.param("gpt-image-1-mini", "1536x1024", "low", 400, id="mini"),
        pytest.param(None, "auto", "auto", 7024, id="unknown"),
    ],
)
def test_the_tokens_are_those_of_the_model_that_drew(model, size, quality, tokens):
    assert image_tokens(model, size, quality) == tokens
