"""Decides whether a program on this machine may use the local proxy.

Pages in a browser must not: any page could spend otherwise.  A page of another site sends Origin or Sec-Fetch-Site, and
one whose own name leads to this machine (DNS rebinding) sends that name as Host.  Both are refused with and without a
bearer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.providers.contract import Provider
from tornado_proxy.wire.host_header import is_loopback_name, parse_host

#: Values of Sec-Fetch-Site that no page of another site can have (Fetch Metadata Request Headers, section 2.2).
_OWN_SITES = frozenset({"", "none", "same-origin"})

#: Without a bearer a body must have one of these types: a form of a page can have others (Fetch standard, 2.2.2).
_UNFORGED_TYPES = ("application/json", "multipart/form-data")

_WEBSOCKET_PROTOCOLS = "sec-websocket-protocol"

#: The credential in a request of which none is required.
INSECURE = Secret("meshagent-insecure")


@dataclass(frozen=True, slots=True)
class LocalAccess:
    """The rules of a local proxy.

    Attributes:
        bearer: The credential that clients send; None if they need none.
        hosts: Normalized names that a Host header may have, beside those of loopback.
        origins: The origins of pages that may send requests; they need the bearer too.
    """

    bearer: Secret | None
    hosts: frozenset[str] = field(default_factory=frozenset)
    origins: frozenset[str] = field(default_factory=frozenset)

    @property
    def credential(self) -> Secret:
        """The credential that printed variables contain."""
        return INSECURE if self.bearer is None else self.bearer

    def check_sender(self, request: IncomingRequest) -> None:
        """Check that no page of another site sent the request.

        Raises:
            NotAllowed: the Host or the origin is foreign.
        """
        name = parse_host(request.header("host"))
        if name is None or not (is_loopback_name(name) or name in self.hosts):
            raise NotAllowed(
                "this Host is not one of the local proxy; use the printed URL, or allow it with --allow-host",
                code="foreign_host",
            )
        origins = request.lines.get("origin", ())
        if origins and not all(origin in self.origins for origin in origins):
            raise NotAllowed(
                "the local proxy serves no pages; allow the origin of yours with --allow-origin", code="foreign_origin"
            )
        if not origins and request.header("sec-fetch-site").lower() not in _OWN_SITES:
            raise NotAllowed("a page of another site sent the request (Sec-Fetch-Site)", code="foreign_origin")
        if self.bearer is None and request.method == "POST" and _has_body(request):
            _require_unforged_type(request.header("content-type"))

    def check_credential(self, request: IncomingRequest, provider: Provider) -> None:
        """Check that the request has the bearer, if one is needed.

        Raises:
            NotAuthenticated: it has not.
        """
        if self.bearer is None:
            return
        # Secret compares in constant time.  Other credentials beside it are a developer's leftovers, and are dropped.
        if not any([Secret(text) == self.bearer for text in _list_credentials(request, provider)]):
            raise NotAuthenticated(
                "missing or invalid bearer of the local proxy; use the variables that tornado-proxy env prints"
            )


def _has_body(request: IncomingRequest) -> bool:
    return request.header("transfer-encoding") != "" or request.header("content-length") not in ("", "0")


def _require_unforged_type(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in _UNFORGED_TYPES:
        raise NotAllowed(
            f"with --insecure a body must be {' or '.join(_UNFORGED_TYPES)}, because pages can send other types; "
            "send the header Content-Type, or use a bearer",
            code="foreign_origin",
        )


def _list_credentials(request: IncomingRequest, provider: Provider) -> Iterable[str]:
    for name in provider.credential_headers:
        for value in request.lines.get(name, ()):
            scheme, _, token = value.strip().partition(" ")
            yield token.strip() if name == "authorization" and scheme.lower() == "bearer" else value.strip()
    if provider.websocket is not None:
        for protocol in request.header(_WEBSOCKET_PROTOCOLS).split(","):
            yield protocol.strip().removeprefix(provider.websocket.token_prefix)
