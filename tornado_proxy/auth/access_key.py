"""Access keys: plain keys for programs, made at run time and kept as SHA-256 digests (domain/state.py).

    tp_<256 random bits in base64url>

A key that was made elsewhere and imported can have any form.  A key is found by its digest alone, in a table of all
digests: the work is the same for a valid key and a forged one, and nothing compares secrets.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from tornado_proxy.auth.validity import format_time
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import Caller, Secret
from tornado_proxy.domain.state import AccessKey

#: The start of keys that this program made.  The bearer of a local proxy starts with `tpl_`.
PREFIX = "tp_"

_SECRET_BYTES = 32


def generate() -> Secret:
    """Return a new secret."""
    return Secret(PREFIX + secrets.token_urlsafe(_SECRET_BYTES))


def identify(key: AccessKey, digest: bytes, now: datetime) -> Caller:
    """Return the caller of a key that was found by the digest of one of its secrets.

    Args:
        key: The key.
        digest: The digest by which it was found.
        now: The time to check the key against, aware UTC.

    Raises:
        NotAuthenticated: The key has expired, or the grace period of this secret has ended.
    """
    if key.expires_at is not None and now >= key.expires_at:
        raise NotAuthenticated(f"access key expired at {format_time(key.expires_at)}; ask for a new one")
    grace_ends = next((secret.valid_until for secret in key.secrets if secret.digest == digest), now)
    if grace_ends is not None and now >= grace_ends:
        raise NotAuthenticated(f"access key was replaced, and ended at {format_time(grace_ends)}; use its new secret")
    ends = [end for end in (key.expires_at, grace_ends) if end is not None]
    return Caller(
        project_id=key.project_id,
        participant=key.participant or key.name,
        credential_id=key.id,
        granted=key.models,
        labels=key.labels,
        expires_at=min(ends, default=None),
    )
