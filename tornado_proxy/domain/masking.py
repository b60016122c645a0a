"""Shows secrets so that a person recognizes them, and no one else can use them."""

from __future__ import annotations

import re

from tornado_proxy.domain.identity import Secret

MASK = "****"

#: Characters of a secret that are shown, and the length from which they are: a shorter one could be guessed from them.
_SHOWN_CHARACTERS = 4
_MIN_CHARACTERS = 10


def mask(secret: Secret) -> str:
    """Return `****` and the last four characters of a secret; of a short one `****` alone."""
    text = secret.reveal()
    return MASK + (text[-_SHOWN_CHARACTERS:] if len(text) >= _MIN_CHARACTERS else "")


#: What looks like a credential: a JWT or its start (`{"` in base64url), or the prefix of a key and at least 16
#: characters.  In any case, because some names that clients choose are shown in lower case.
_CREDENTIAL = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]{12,}[\w.-]*|(?:sk-|ma-|tpl?_|ek_)[\w.-]{16,})", re.ASCII | re.IGNORECASE
)


def mask_credentials(text: str) -> str:
    """Return `text` with a mask in place of all texts that look like a token or key, also of one cut short."""
    return _CREDENTIAL.sub(MASK, text)
