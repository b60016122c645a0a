"""Compressed request bodies: each coding, several members, cut and hostile ones."""

from __future__ import annotations

import gzip
import importlib
import zlib

import pytest

from tornado_proxy.domain.errors import BadRequest, BodyTooLarge, InvalidBody
from tornado_proxy.wire import content_coding
from tornado_proxy.wire.content_coding import BodyLimit, decode

BODY = b'{"model":"gpt-4o-mini","messages":[]}' * 50
MIB = 1024 * 1024
ONE_MB = BodyLimit(1, "limits.max_body_mb")

needs_zstd = pytest.mark.skipif(content_coding._zstd() is None, reason="no zstd module is installed")


def zstd_compress(data: bytes) -> bytes:
    module = importlib.import_module(content_coding._zstd().__name__)
    compressed: bytes = module.compress(data)
    return compressed


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        pytest.param(BODY, "identity", id="identity"),
        pytest.param(BODY, "", id="none"),
        pytest.param(gzip.compress(BODY), "gzip", id="gzip"),
        pytest.param(gzip.compress(BODY), " X-GZIP ", id="x-gzip"),
        pytest.param(zlib.compress(BODY), "deflate", id="deflate"),
        pytest.param(gzip.compress(BODY[:10]) + gzip.compress(BODY[10:]), "gzip", id="two members"),
    ],
)
def test_body_is_decoded(body: bytes, coding: str) -> None:
    assert decode(body, coding, ONE_MB) == BODY


@needs_zstd
def test_zstd_body_is_decoded() -> None:
    assert decode(zstd_compress(BODY), "zstd", ONE_MB) == BODY
    assert decode(zstd_compress(BODY[:10]) + zstd_compress(BODY[10:]), "zstd", ONE_MB) == BODY


@needs_zstd
def test_zstd_body_is_bounded_and_checked() -> None:
    with pytest.raises(BodyTooLarge):
        decode(zstd_compress(bytes(2 * MIB)), "zstd", ONE_MB)
    with pytest.raises(InvalidBody):
        decode(zstd_compress(BODY)[:-2], "zstd", ONE_MB)
    with pytest.raises(InvalidBody):
        decode(BODY, "zstd", ONE_MB)


def test_zstd_without_its_module_is_rejected_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_coding, "_zstd", lambda: None)

    with pytest.raises(BadRequest, match="send gzip, or none"):
        decode(b"(\xb5/\xfd", "zstd", ONE_MB)


def test_decoded_body_up_to_the_limit_is_accepted() -> None:
    assert len(decode(gzip.compress(bytes(MIB)), "gzip", ONE_MB)) == MIB
    with pytest.raises(BodyTooLarge, match=r"larger than 1 MiB.*limits\.max_body_mb"):
        decode(gzip.compress(bytes(MIB + 1)), "gzip", ONE_MB)


def test_decoding_of_a_bomb_stops_at_the_limit() -> None:
    with pytest.raises(BodyTooLarge):
        decode(gzip.compress(bytes(MIB)) * 16, "gzip", BodyLimit(2, ""))


@pytest.mark.parametrize(
    ("body", "coding", "error"),
    [
        pytest.param(BODY, "gzip", InvalidBody, id="not compressed"),
        pytest.param(gzip.compress(BODY)[:-3], "gzip", InvalidBody, id="cut off"),
        pytest.param(gzip.compress(BODY) + b"rest", "gzip", InvalidBody, id="bytes behind the end"),
        pytest.param(gzip.compress(b"") * 17, "gzip", InvalidBody, id="many members"),
        pytest.param(BODY, "br", BadRequest, id="unsupported"),
        pytest.param(gzip.compress(gzip.compress(BODY)), "gzip,gzip", BadRequest, id="two codings"),
    ],
)
def test_body_that_cannot_be_decoded_is_a_400(body: bytes, coding: str, error: type[BadRequest]) -> None:
    with pytest.raises(error) as rejected:
        decode(body, coding, ONE_MB)

    assert rejected.value.status == 400
