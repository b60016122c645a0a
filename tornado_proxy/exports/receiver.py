"""Posts signed events to a receiver, over one connection that stays open.

A response with a status of 2xx accepts an event.  Any other end of the attempt is a failure that may pass, or, for a
status that says so, one that will not.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import tornado_proxy
from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.identity import Secret
from tornado_proxy.exports.events import CONTENT_TYPE, Event
from tornado_proxy.webhooks.signature import sign_message

#: Seconds without progress of the connection after which an attempt fails.
TIMEOUT_S = 20.0

#: Bytes of a response that are read; after a longer one the connection is closed.
_MAX_RESPONSE_BYTES = 64 * 1024

#: Statuses after which the same request can succeed later, beside 5xx.
_PASSING = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.  `lasting` is True if another attempt would fail too."""

    reason: str
    lasting: bool = False


def find_url_fault(url: str) -> str:
    """Return the rule that a receiver's URL breaks, "" if it breaks none."""
    if not url.isascii() or not url.isprintable() or " " in url or not is_secure_url(url):
        return "a receiver's URL is https, or http on this machine, without credentials: the signature identifies us"
    return ""


class Receiver:
    """A program that takes events at a URL, for which find_url_fault() returns no fault."""

    def __init__(self, url: str, secrets: Sequence[Secret], *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._secrets = secrets
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.hostname or ""
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)

    def post(self, event: Event) -> Failure | None:
        """Send an event; return None if it is accepted."""
        body = event.text.encode()
        headers = {
            "Content-Type": CONTENT_TYPE,
            "User-Agent": f"tornado-proxy/{tornado_proxy.__version__}",
            # The id for receivers that know the header of APIs; webhook-id has it for those of Standard Webhooks.
            "Idempotency-Key": event.id,
            **sign_message(event.id, datetime.now(UTC), body, self._secrets),
        }
        try:
            self._connection.request("POST", self._target, body, headers)
            response = self._connection.getresponse()
            response.read(_MAX_RESPONSE_BYTES)
            if not response.isclosed():
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Failure(str(error) or type(error).__name__)
        return _describe(response.status)

    def close(self) -> None:
        """Close the connection; the next post() opens one."""
        with contextlib.suppress(OSError):
            self._connection.close()


def _describe(status: int) -> Failure | None:
    if 200 <= status < 300:
        return None
    return Failure(f"status {status}", lasting=status < 500 and status not in _PASSING)
