"""Project API keys in their written form, `ma-<kid>-<project>-<secret>`.

Both ids are UUIDs: their 16 bytes in URL-safe base64 without padding, `-` written as `.`.  This is the form of the
public package meshagent-api (`keys.py`), so that its tools read our keys.
"""

from __future__ import annotations

import base64
import re
import secrets
import uuid

from tornado_proxy.domain.identity import ApiKey, Secret

#: The ids are 22 characters each; the secret is the rest, dashes and all, in printable ASCII.
_WRITTEN = re.compile(r"ma-([A-Za-z0-9_.]{22})-([A-Za-z0-9_.]{22})-([!-~]+)")

#: Random bytes of a new signing secret: as many as HMAC-SHA256 gives out (RFC 7518 section 3.2).
_SECRET_BYTES = 32


def generate(project_id: str) -> ApiKey:
    """A fresh key for the project.

    Raises:
        ValueError: `project_id` is not a UUID.
    """
    secret = Secret(secrets.token_urlsafe(_SECRET_BYTES))
    return ApiKey(str(uuid.uuid4()), str(uuid.UUID(project_id)), secret)


def format_api_key(key: ApiKey) -> Secret:
    """The written form, which holds the signing secret."""
    return Secret(f"ma-{_compress(key.id)}-{_compress(key.project_id)}-{key.secret.reveal()}")


def parse_api_key(text: str) -> ApiKey:
    """Read the written form.

    Raises:
        ValueError: it is not one; the message does not repeat it.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise ValueError("an API key has the form ma-<kid>-<project>-<secret>")
    kid, project_id, secret = match.groups()
    return ApiKey(_expand(kid), _expand(project_id), Secret(secret))


def _compress(guid: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(guid).bytes).decode().replace("-", ".").rstrip("=")


def _expand(text: str) -> str:
    return str(uuid.UUID(bytes=base64.urlsafe_b64decode(text.replace(".", "-") + "==")))
