"""Sends one message to a webhook, within bounds: 10 s, no redirect, no body of the response.

A redirect is a failure: it could lead to an address of the operator's own network that the configuration does not name.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from tornado_proxy.config.sections.alerts import Webhook
from tornado_proxy.domain.units import MIB
from tornado_proxy.webhooks.signature import sign_message

#: Seconds until a whole response must have arrived.
TIMEOUT_S = 10.0

_MAX_BODY_BYTES = 1 * MIB

#: Characters of a reason that are logged.
_MAX_REASON_CHARACTERS = 200

#: The status with which a receiver says that it wants no more messages (Standard Webhooks, "Delivery").
_GONE = 410


class DeliveryError(Exception):
    """A receiver did not accept a message; `final` is True if it wants none."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


async def deliver(webhook: Webhook, message_id: str, body: str) -> int:
    """Send a message and return the status of the response, 200 to 299.

    Raises:
        DeliveryError: the receiver did not accept it.
    """
    content = body.encode()
    headers = sign_message(message_id, datetime.now(UTC), content, [webhook.secret])
    # A client for each message: they are rare, and its resolver and queue end with it.
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MAX_BODY_BYTES)
    try:
        response = await client.fetch(_make_request(webhook.url.reveal(), content, headers), raise_error=False)
    except HTTPTimeoutError:
        raise DeliveryError(f"no response within {TIMEOUT_S:g} s") from None
    except HTTPClientError as error:
        raise DeliveryError(f"no response: {error.message}"[:_MAX_REASON_CHARACTERS]) from None
    except (OSError, ValueError) as error:  # network, DNS and TLS; a host name that DNS cannot hold
        raise DeliveryError(f"no response: {error}"[:_MAX_REASON_CHARACTERS]) from None
    finally:
        client.close()
    return _check_status(response.code)


def _check_status(status: int) -> int:
    if 200 <= status < 300:
        return status
    if 300 <= status < 400:
        raise DeliveryError(f"status {status}: redirects are not followed; configure the URL to which it leads")
    raise DeliveryError(f"status {status}", final=status == _GONE)


def _make_request(url: str, body: bytes, headers: Mapping[str, str]) -> HTTPRequest:
    return HTTPRequest(
        url,
        method="POST",
        headers={"Content-Type": "application/json", "User-Agent": "tornado-proxy", **headers},
        body=body,
        # Both from the start of the request; a timeout of ours would leave the connection open.
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        follow_redirects=False,
        decompress_response=False,
        ssl_options=_tls_context() if url.startswith("https:") else None,
    )


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()
