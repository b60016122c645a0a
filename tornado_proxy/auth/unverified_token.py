"""Decodes a JWT's header and claims without verifying them.

Stricter than PyJWT, so that two programs cannot read one token differently: three segments of canonical base64url, JSON
without duplicate members and NaN, no `crit` and no `b64` (RFC 7515 section 4.1.11, RFC 7797).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from tornado_proxy.domain.errors import NotAuthenticated

#: Characters of a token; one with every grant of meshagent-api has about 2,000.
MAX_TOKEN_CHARACTERS = 16 * 1024

#: Header members that change how a token must be read; none of them is supported.
_UNSUPPORTED_EXTENSIONS = frozenset({"b64", "crit", "enc", "zip"})


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """The content of a token whose signature has not been checked: anyone can have written it."""

    header: Mapping[str, object]
    claims: Mapping[str, object]


def read_unverified(token: str) -> UnverifiedToken:
    """Decode `token` without verifying its signature.

    Raises:
        NotAuthenticated: The token is too long, or not a signed JWT in compact form (RFC 7515 section 7.1).
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise NotAuthenticated(f"token is longer than {MAX_TOKEN_CHARACTERS} characters; request a shorter one")
    segments = token.split(".")
    try:
        if len(segments) != 3:
            raise ValueError("a signed JWT has three segments")
        header, claims = _decode_object(segments[0]), _decode_object(segments[1])
        _decode_segment(segments[2])
    except (ValueError, TypeError):
        # Developers often send the provider's own key, which is no JWT.
        raise NotAuthenticated(
            "the credential is not a token (JWT); send a participant token, not a provider key"
        ) from None
    if _UNSUPPORTED_EXTENSIONS & header.keys():
        extensions = ", ".join(sorted(_UNSUPPORTED_EXTENSIONS))
        raise NotAuthenticated(
            f"token header has an unsupported JWT extension ({extensions}); request a token without it"
        )
    return UnverifiedToken(header, claims)


def is_jwt(token: str) -> bool:
    """Return True if `token` has the form of a signed JWT: three segments, the first a JSON object with `alg`."""
    segments = token.split(".", 3)
    if len(segments) != 3 or len(token) > MAX_TOKEN_CHARACTERS:
        return False
    try:
        return "alg" in _decode_object(segments[0])
    except (ValueError, TypeError):
        return False


def read_json_object(data: bytes) -> dict[str, object]:
    """Parse a JSON object strictly: UTF-8, no member twice, no NaN.

    Raises:
        ValueError: It is not a JSON object, or nested too deep.
    """
    try:
        value: object = json.loads(data.decode(), object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # callers catch ValueError alone
    return value


def _decode_object(segment: str) -> dict[str, object]:
    return read_json_object(_decode_segment(segment))


def _decode_segment(segment: str) -> bytes:
    """Return the bytes of `segment`.  Only the canonical form is accepted, so that a token has one spelling."""
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise ValueError("not canonical base64url without padding")
    return data


def _reject_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
