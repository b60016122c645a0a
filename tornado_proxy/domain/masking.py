"""Shows secrets so that a person recognizes them, and no one else can use them."""

from __future__ import annotations

from tornado_proxy.domain.identity import Secret

MASK = "****"

#: Characters of a secret that are shown, and the length from which they are: a shorter one could be guessed from them.
_SHOWN_CHARACTERS = 4
_MIN_CHARACTERS = 10


def mask(secret: Secret) -> str:
    """Return `****` and the last four characters of a secret; of a short one `****` alone."""
    text = secret.reveal()
    return MASK + (text[-_SHOWN_CHARACTERS:] if len(text) >= _MIN_CHARACTERS else "")
