"""The text form of project API keys: `ma-<kid>-<project>-<secret>`.

Both ids are UUIDs: 16 bytes in URL-safe base64 without padding, with `.` instead of `-`.  This is the format of the
public package meshagent-api (`keys.py`), so that its tools read these keys.
"""

from __future__ import annotations

import base64
import re
import secrets
import uuid

from tornado_proxy.domain.identity import ApiKey, Secret

#: Each id has 22 characters; the secret is the rest, dashes included, in printable ASCII.
_API_KEY = re.compile(r"ma-([A-Za-z0-9_.]{22})-([A-Za-z0-9_.]{22})-([!-~]+)")

#: Random bytes of a new signing secret: the output size of HMAC-SHA256, the minimum of RFC 7518 section 3.2.
_SECRET_BYTES = 32


def generate(project_id: str) -> ApiKey:
    """Return a new key for the project.

    Raises:
        ValueError: `project_id` is not a UUID.
    """
    secret = Secret(secrets.token_urlsafe(_SECRET_BYTES))
    return ApiKey(str(uuid.uuid4()), str(uuid.UUID(project_id)), secret)


def format_api_key(key: ApiKey) -> Secret:
    """Return the text form, which contains the signing secret."""
    return Secret(f"ma-{_compress(key.id)}-{_compress(key.project_id)}-{key.secret.reveal()}")


def parse_api_key(text: str) -> ApiKey:
    """Parse the text form; white space around it is ignored.

    Raises:
        ValueError: `text` has another form; the message does not repeat it.
    """
    match = _API_KEY.fullmatch(text.strip())
    if match is None:
        raise ValueError("an API key must have the form ma-<kid>-<project>-<secret>")
    kid, project_id, secret = match.groups()
    return ApiKey(_expand(kid), _expand(project_id), Secret(secret))


def _compress(guid: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(guid).bytes).decode().replace("-", ".").rstrip("=")


def _expand(text: str) -> str:
    return str(uuid.UUID(bytes=base64.urlsafe_b64decode(text.replace(".", "-") + "==")))
