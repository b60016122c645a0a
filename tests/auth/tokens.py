"""Keys, projects and hand-made tokens for the tests of this folder."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

from tornado_proxy.domain.identity import ApiKey, Project, Secret

PROJECT_ID = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
OTHER_PROJECT_ID = "5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77"
SECRET = "signing-secret-of-the-first-project-0123456789"
OTHER_SECRET = "signing-secret-of-the-other-project-9876543210"

KEY = ApiKey("7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11", PROJECT_ID, Secret(SECRET))
SECOND_KEY = ApiKey("9c1d2e3f-4a5b-4c6d-8e7f-0a1b2c3d4e5f", PROJECT_ID, Secret("second-" + SECRET))
OTHER_KEY = ApiKey("3f4f9f0e-27f8-4a55-93a5-6b7c8d9e0f12", OTHER_PROJECT_ID, Secret(OTHER_SECRET))
KEYS = {key.id: key for key in (KEY, SECOND_KEY, OTHER_KEY)}

PROJECTS = (
    Project(PROJECT_ID, "first", api_keys=(KEY, SECOND_KEY)),
    Project(OTHER_PROJECT_ID, "other", api_keys=(OTHER_KEY,)),
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())

HEADER = {"alg": "HS256", "typ": "JWT"}


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token with `changes`; None removes a claim."""
    valid = {
        "name": "ada",
        "grants": [
            {"name": "room", "scope": "lab"},
            {"name": "role", "scope": "agent"},
            {"name": "api", "scope": {"llm": {}}},
        ],
        "sub": PROJECT_ID,
        "kid": KEY.id,
        "exp": NOW_S + 3600,
    }
    return {name: value for name, value in {**valid, **changes}.items() if value is not None}


def granting(scope: Any) -> dict[str, Any]:
    """Return the claims of a token whose `api` grant has this scope."""
    return claims(grants=[{"name": "api", "scope": scope}])


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_bytes(header: bytes, payload: bytes, secret: str = SECRET) -> str:
    """Return a token of exactly these bytes with a valid signature, made without a JWT library."""
    signed = f"{segment(header)}.{segment(payload)}"
    return f"{signed}.{segment(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


def sign(payload: Any, *, header: Any = None, secret: str = SECRET) -> str:
    return sign_bytes(json.dumps(HEADER if header is None else header).encode(), json.dumps(payload).encode(), secret)


def hash_token(token: str) -> str:
    """Return the id of a token: a hash of what its signature signs."""
    return f"tok_{hashlib.sha256(token.rpartition('.')[0].encode()).hexdigest()[:24]}"
