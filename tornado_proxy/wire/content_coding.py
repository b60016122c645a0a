"""Decodes compressed request bodies, within a limit of decoded bytes.

Usage and admission read the body, and the public APIs of the providers do not document that they take a compressed one,
so it is decoded here and sent as it is.  A megabyte can decode to a gigabyte: decoding stops at the limit.

Sources: RFC 9110 section 8.4.1 (gzip, deflate), RFC 8878 and RFC 9659 (zstd, with a window of at most 8 MiB).
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

from tornado_proxy.domain.errors import BadRequest, BodyTooLarge, InvalidBody
from tornado_proxy.domain.units import MIB

#: zlib's own detection of a gzip or zlib header (32), with the largest window (15).
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS

#: RFC 9659 section 3: decoders of the coding zstd need not support a window above 8 MiB, 2 to the power of 23.
_ZSTD_WINDOW_LOG = 23

#: Members of a body.  Clients send one; each copies the rest of the body, so millions of empty ones would take hours.
_MAX_MEMBERS = 16

#: Python's own module since 3.14, and the same module for older versions.
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")


class _Decompressor(Protocol):
    """One gzip member, zlib stream or zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The MiB that a body may have, and the name of the setting."""

    mb: int
    setting: str


def decode(body: bytes, coding: str, limit: BodyLimit) -> bytes:
    """Return the decoded body.  `coding` is the value of Content-Encoding.

    Raises:
        BadRequest: the coding is not supported.
        InvalidBody: the body is not valid in that coding, or is cut off.
        BodyTooLarge: the decoded body is larger than `limit`.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    make = _MAKERS.get(name)
    if make is None:
        supported = ", ".join(sorted(_MAKERS))
        raise BadRequest(f"Content-Encoding {coding[:40]!r} is not supported; send one of {supported}, or none")
    try:
        return _decode_all(body, make, limit)
    except (zlib.error, EOFError, _zstd_error()) as error:
        raise InvalidBody(f"the body is not valid {name}, as its Content-Encoding says") from error


def _decode_all(body: bytes, make: Callable[[], _Decompressor], limit: BodyLimit) -> bytes:
    """Return the decoded members of a body; there can be several, one after the other."""
    limit_bytes = limit.mb * MIB
    parts: list[bytes] = []
    decoded_bytes = 0
    while body:
        if len(parts) == _MAX_MEMBERS:
            raise EOFError("too many members")
        member = make()
        # One byte more than the limit tells a body of exactly the limit from a longer one.
        part = member.decompress(body, limit_bytes - decoded_bytes + 1)
        decoded_bytes += len(part)
        parts.append(part)
        if decoded_bytes > limit_bytes:
            raise BodyTooLarge(
                f"the decoded body is larger than {limit.mb} MiB, the limit of this server ({limit.setting})"
            )
        if not member.eof:
            raise EOFError("the body is cut off")
        body = member.unused_data
    return b"".join(parts)


def _make_gzip() -> _Decompressor:
    return zlib.decompressobj(_GZIP_OR_ZLIB)


def _make_zstd() -> _Decompressor:
    zstd = _zstd()
    if zstd is None:
        raise BadRequest("Content-Encoding zstd needs the package backports.zstd on this server; send gzip, or none")
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return cast(_Decompressor, zstd.ZstdDecompressor(options=options))


@cache
def _zstd() -> Any:
    """Return the module that reads zstd, None if this Python has none."""
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _zstd_error() -> type[Exception]:
    zstd = _zstd()
    return zlib.error if zstd is None else cast(type[Exception], zstd.ZstdError)


_MAKERS: dict[str, Callable[[], _Decompressor]] = {
    "deflate": _make_gzip,
    "gzip": _make_gzip,
    "x-gzip": _make_gzip,
    "zstd": _make_zstd,
}
