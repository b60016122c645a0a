"""Keys of an issuer, and access tokens that are right or wrong in any way."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

CLIENT = "cli"
AUDIENCE = "llm-proxy"
SUBJECT = "user-7"


@dataclass(frozen=True)
class SigningKey:
    """A private key and its public form in a key set."""

    kid: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public = json.loads(algorithm.to_jwk(self.private.public_key()))
        public.pop("key_ops", None)
        return {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm}


@cache
def rsa_key(kid: str = "rsa", bits: int = 2048) -> SigningKey:
    return SigningKey(kid, "RS256", rsa.generate_private_key(65537, bits))


@cache
def ec_key(kid: str = "ec") -> SigningKey:
    return SigningKey(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


@cache
def ed_key(kid: str = "ed") -> SigningKey:
    return SigningKey(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


@cache
def p384_key() -> Any:
    return ec.generate_private_key(ec.SECP384R1())


def key_set(*keys: SigningKey | dict[str, Any]) -> dict[str, Any]:
    return {"keys": [key if isinstance(key, dict) else key.jwk for key in keys]}


def claims_of(issuer: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of a valid access token with `changes`; None removes a claim."""
    now = int(time.time())
    valid = {
        "iss": issuer,
        "sub": SUBJECT,
        "aud": AUDIENCE,
        "client_id": CLIENT,
        "scope": "openid llm_proxy",
        "exp": now + 3600,
        "iat": now,
        "jti": "a-token",
    }
    return {name: value for name, value in {**valid, **changes}.items() if value is not None}


def sign(key: SigningKey, claims: dict[str, Any] | bytes, **header: Any) -> str:
    """Return a signed token; a member of the header that is None is left out, whatever it says is not checked."""
    full = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid, **header}
    shown = {name: value for name, value in full.items() if value is not None}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{encode(json.dumps(shown).encode())}.{encode(payload)}"
    signature = jwt.get_algorithm_by_name(key.algorithm).sign(signed.encode(), key.private)
    return f"{signed}.{encode(signature)}"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
