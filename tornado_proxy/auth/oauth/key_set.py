"""JSON Web Key Sets of OAuth issuers (RFC 7517), reduced to the keys that can verify access tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from tornado_proxy.auth.unverified_token import read_json_object

#: The algorithms of access tokens, with the key type and curve that each needs (RFC 7518 section 6, RFC 8037).
KEY_TYPES: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
}

#: Keys of a set; issuers publish two to ten.
MAX_KEYS = 100

#: NIST SP 800-131A: shorter RSA keys are disallowed since 2014.
MIN_RSA_BITS = 2048

#: Characters of a key id.
_MAX_KEY_ID_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the only algorithm that it is used with."""

    algorithm: str
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer, by key id."""

    keys: Mapping[str, VerificationKey]

    def find(self, key_id: str, algorithm: str) -> VerificationKey | None:
        """Return the key with this id, None if there is none or if it is a key of another algorithm."""
        key = self.keys.get(key_id)
        return key if key is not None and key.algorithm == algorithm else None


def parse_key_set(data: bytes) -> KeySet:
    """Parse a JSON Web Key Set.

    Keys without an id, of other types, for encryption, and RSA keys below MIN_RSA_BITS are left out.

    Raises:
        ValueError: It is no key set, has too many keys, or two keys have one id: which of them counts is undefined.
    """
    listed = read_json_object(data).get("keys")
    if not isinstance(listed, list) or not all(isinstance(key, dict) for key in listed):
        raise ValueError("the key set has no list of keys")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"the key set has more than {MAX_KEYS} keys")
    named = [key["kid"] for key in listed if isinstance(key.get("kid"), str)]
    if len(set(named)) != len(named):
        raise ValueError("two keys of the key set have the same kid")
    found = {key["kid"]: usable for key in listed if (usable := _read_key(key)) is not None}
    return KeySet(found)


def _read_key(key: Mapping[str, object]) -> VerificationKey | None:
    key_id = key.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MAX_KEY_ID_CHARACTERS:
        return None
    key_type = (key.get("kty"), key.get("crv"))
    algorithm = next((name for name, expected in KEY_TYPES.items() if key_type == expected), None)
    # `use` and `key_ops` are optional (RFC 7517 sections 4.2 and 4.3).
    operations = key.get("key_ops", ["verify"])
    if (
        algorithm is None
        or key.get("alg", algorithm) != algorithm
        or key.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    return _load_key(dict(key), algorithm)


def _load_key(key: dict[str, object], algorithm: str) -> VerificationKey | None:
    # Only the public members: with a private one PyJWT would return a key that signs.
    public: dict[str, Any] = {name: key[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in key}
    try:
        loaded = jwt.PyJWK(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(loaded, RSAPublicKey) and loaded.key_size < MIN_RSA_BITS:
        return None
    return VerificationKey(algorithm, loaded)
