"""Decides whether a request may use the admin port.

The order is that of the checks below: a page in an operator's browser learns nothing about the credential.
"""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.config.settings import AdminAccess
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.wire.host_header import is_loopback_name, parse_host

#: Values of Sec-Fetch-Site that no page of another site can have (Fetch Metadata Request Headers, section 2.2).
_OWN_SITES = frozenset({"none", "same-origin"})


def check_origin(headers: Mapping[str, str]) -> None:
    """Raise NotAllowed if a page in a browser sent the request."""
    if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES:
        raise NotAllowed(
            "the API of the admin port serves no pages; send the request without Origin and Sec-Fetch-Site",
            code="foreign_origin",
        )


def check_host(headers: Mapping[str, str], access: AdminAccess) -> None:
    """Raise NotAllowed if the Host header names neither loopback nor a configured name."""
    name = parse_host(headers.get("Host", ""))
    if name is None or not (is_loopback_name(name) or name in access.hosts):
        raise NotAllowed("this Host is not one of the admin port; add it to admin.hosts", code="foreign_host")


def check_bearer(headers: Mapping[str, str], access: AdminAccess) -> None:
    """Raise NotAuthenticated unless the request has the configured token."""
    if access.token is None:
        raise NotAuthenticated("the admin port has no token; set admin.token", code="invalid_admin_token")
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    # Secret compares in constant time.
    if scheme.lower() != "bearer" or Secret(given.strip()) != access.token:
        raise NotAuthenticated(
            "missing or invalid token of the admin port; send that of admin.token as Authorization: Bearer, or check "
            "that the URL is that of the client port",
            code="invalid_admin_token",
        )
