"""Login on another device: the person enters a code there (RFC 8628)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tornado_proxy.issuers.http_fetch import FetchError
from tornado_proxy.local.session.issuer import (
    DEVICE_GRANT,
    DeviceCode,
    LoginError,
    request_device_code,
    request_tokens,
)
from tornado_proxy.local.session.session import Client, Endpoints, Tokens

#: Seconds between two polls if the issuer states none, and what `slow_down` adds (RFC 8628 sections 3.2 and 3.5).
DEFAULT_INTERVAL_S = 5.0
_SLOW_DOWN_S = 5.0


async def log_in_on_device(client: Client, endpoints: Endpoints, announce: Callable[[DeviceCode], None]) -> Tokens:
    """Return the tokens of a login; `announce` tells the person the code and the page.

    Waits for the person; the caller sets the time limit.

    Raises:
        LoginError: the issuer has no device flow, or the person or the issuer has refused, or the code has expired.
        FetchError: the issuer cannot be reached at the start.
    """
    if not endpoints.device:
        raise LoginError(f"{client.issuer} has no device login; log in without --device on a machine with a browser")
    started = await request_device_code(endpoints.device, client, default_interval_s=DEFAULT_INTERVAL_S)
    announce(started)
    form = {"grant_type": DEVICE_GRANT, "device_code": started.code.reveal()}
    interval_s = started.interval_s
    while True:
        await asyncio.sleep(interval_s)
        try:
            return await request_tokens(endpoints.token, client.client_id, form)
        except LoginError as error:
            if error.code == "slow_down":
                interval_s += _SLOW_DOWN_S
            elif error.code != "authorization_pending":
                raise
        except FetchError:
            # Section 3.5: a client polls on after a connection timeout, and less often.
            interval_s *= 2
