"""The credential of local clients: made once, kept in the state folder, used by every local proxy of the user."""

from __future__ import annotations

import secrets
from pathlib import Path

from tornado_proxy.domain.identity import Secret
from tornado_proxy.local.folders import replace_private_file

PREFIX = "tpl_"
_FILE = "local_bearer"

#: Random bytes of a bearer.
_BEARER_BYTES = 32


def keep_bearer(folder: Path) -> tuple[Secret, bool]:
    """Return the stored bearer and False, or a new one and True.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / _FILE
    try:
        stored = path.read_text().strip()
    except OSError:
        stored = ""
    if stored.startswith(PREFIX) and stored.isascii() and stored.isprintable():
        return Secret(stored), False
    bearer = PREFIX + secrets.token_urlsafe(_BEARER_BYTES)
    replace_private_file(path, bearer + "\n")
    return Secret(bearer), True
