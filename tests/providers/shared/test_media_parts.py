"""Requests whose whole input is text in the body."""

from __future__ import annotations

import json

import pytest

from tornado_proxy.providers.shared.media_parts import is_text_only

OPAQUE = (b"image", b"file_id")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        json.dumps({"text": 'an "image"'}).encode(),
        json.dumps({"text": "images"}).encode(),
        json.dumps({"text": "Gr\u00fc\u00dfe \u4f60\u597d"}).encode(),
        json.dumps({"text": "a\u0000\u001b"}).encode(),
    ],
)
def test_text_is_text(body: bytes) -> None:
    assert is_text_only(body, OPAQUE)


@pytest.mark.parametrize(
    "body", [b'{"type":"image"}', b'{"file_id":"file_1"}', rb'{"type":"\u0069mage"}', rb'{"f\u0069le_id":"x"}']
)
def test_media_and_names_with_escapes_are_not(body: bytes) -> None:
    assert not is_text_only(body, OPAQUE)
