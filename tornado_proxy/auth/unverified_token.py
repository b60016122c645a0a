"""What a JWT says before anything is proved: its header and its claims.

Stricter than PyJWT, so that two readers cannot understand one token differently: three segments of canonical base64url,
JSON without doubled members and without NaN, no `crit` and no `b64` (RFC 7515 section 4.1.11, RFC 7797).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from tornado_proxy.domain.errors import NotAuthenticated

#: Characters of a token that is looked at; one with every grant of meshagent-api has some 2,000.
MAX_TOKEN_CHARACTERS = 16 * 1024

#: Header members that change how a token must be read; we know none of them.
_UNKNOWN_EXTENSIONS = frozenset({"b64", "crit", "enc", "zip"})


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token that anybody can have written."""

    header: Mapping[str, object]
    claims: Mapping[str, object]


def read_unverified(token: str) -> UnverifiedToken:
    """Read `token` without proving anything.

    Raises:
        NotAuthenticated: it is too long, or not a signed JWT in compact form.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise NotAuthenticated(f"the token is longer than {MAX_TOKEN_CHARACTERS} characters; ask for a shorter one")
    segments = token.split(".")
    try:
        if len(segments) != 3:
            raise ValueError("a signed JWT has three segments")
        header, claims = _json_object(segments[0]), _json_object(segments[1])
        _decode(segments[2])
    except (ValueError, TypeError, RecursionError):
        raise NotAuthenticated(
            "the credential is not a token (JWT) that can be read here; send a participant token, not a provider key"
        ) from None
    if _UNKNOWN_EXTENSIONS & header.keys():
        raise NotAuthenticated("the token's header asks for a JWT extension that is not taken here; mint a plain one")
    return UnverifiedToken(header, claims)


def _json_object(segment: str) -> dict[str, object]:
    value: object = json.loads(
        _decode(segment).decode(), object_pairs_hook=_members_once, parse_constant=_refuse_constant
    )
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _decode(segment: str) -> bytes:
    """The bytes of `segment`.  One form only: other spellings of the same bytes would be other tokens to a cache."""
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise ValueError("not canonical base64url without padding")
    return data


def _members_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
