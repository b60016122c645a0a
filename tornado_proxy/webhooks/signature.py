"""Signs messages to other programs as Standard Webhooks describes.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime

from standardwebhooks import Webhook

from tornado_proxy.domain.identity import Secret

#: The start of a secret's text form.
_SECRET_PREFIX = "whsec_"  # noqa: S105  # no secret

#: The bytes of a secret that the specification allows.
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


def check_secret(secret: Secret) -> str:
    """Return the fault of a webhook's secret, "" for a valid one."""
    text = secret.reveal()
    if not text.startswith(_SECRET_PREFIX):
        return f"a webhook's secret begins with {_SECRET_PREFIX}; copy it as the receiver shows it"
    try:
        key = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        return f"a webhook's secret is base64 after {_SECRET_PREFIX}; copy it as the receiver shows it"
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        return (
            f"a webhook's secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, this one {len(key)}; make another"
        )
    return ""


def sign_message(message_id: str, at: datetime, body: bytes, secrets: Sequence[Secret]) -> Mapping[str, str]:
    """Return the headers that identify and sign a message.

    Args:
        message_id: The id of the message, the same when it is sent again: receivers detect repetitions by it.
        at: The time of this attempt, aware UTC; receivers refuse a time more than five minutes away from theirs.
        body: The bytes that are sent, UTF-8.
        secrets: Valid secrets (check_secret); two while a receiver changes its own, each signs.
    """
    signatures = (Webhook(secret.reveal()).sign(message_id, at, body.decode()) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
