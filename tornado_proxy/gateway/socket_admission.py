"""Everything that must hold before a WebSocket to a provider is opened, and before a frame goes there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from tornado_proxy.auth.credentials import find_websocket_token
from tornado_proxy.auth.permissions import require_model
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission import (
    Headers,
    RequestContext,
    check_spends,
    passed_headers,
    provider_access,
    refuse_token_in_target,
)
from tornado_proxy.gateway.object_ownership import Ownership
from tornado_proxy.providers.contract import ClientFrame, Endpoint, SocketReader, WebSocketEndpoint
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.websocket.connection import WebSocketRequest

#: Subprotocols that carry credentials or choose an account: they never go on.
_PRIVATE = ("openai-insecure-api-key.", "openai-organization.", "openai-project.")


def admit_upgrade(
    snapshot: Snapshot, target: str, headers: Headers, started_at: datetime
) -> RequestContext[WebSocketEndpoint]:
    """Find the route and the caller of a request for a WebSocket.

    Raises:
        CallerError: no such route, not a WebSocket, or no valid credential.
    """
    match = snapshot.routes.match_websocket(target)
    convention = match.provider.websocket
    token_prefix = convention.token_prefix if convention is not None else None
    token = find_websocket_token(headers, match.provider.credential_headers, token_prefix)
    caller = snapshot.authenticator.authenticate(token, started_at, session_keys=match.endpoint.session_keys)
    refuse_token_in_target(target, token)
    return RequestContext(snapshot, match, caller, Secret(token), headers, started_at)


async def open_reader(
    entry: RequestContext[WebSocketEndpoint], subprotocols: tuple[str, ...], ownership: Ownership
) -> SocketReader:
    """What reads the session, all that opening it can cost admitted.

    Raises:
        CallerError: it asks for what has no price, is not granted, or is not the project's.
    """
    query = entry.match.upstream_target.partition("?")[2]
    if entry.caller.session is not None and "model=" not in query:
        query = f"{query}&{entry.caller.session.query}"  # for the reader: the provider knows it from its own key
    reader = entry.match.endpoint.open_reader(query, subprotocols)
    check_spends(entry, reader.spends, entry.started_at)
    await ownership.require(entry, reader.references)
    return reader


async def admit_frame(
    entry: RequestContext[WebSocketEndpoint], frame: ClientFrame, ownership: Ownership, at: datetime
) -> None:
    """Check what one frame of the client asks for.

    Raises:
        CallerError: it asks for what has no price, is not granted, or is not the project's.
    """
    check_spends(entry, frame.spends, at)
    if frame.references:
        await ownership.require(entry, frame.references)


def check_again(entry: RequestContext[Endpoint], spends: Iterable[Spend], snapshot: Snapshot) -> None:
    """Look at the credential of a session that runs, by the configuration that is in use now.

    Raises:
        CallerError: it has expired, was revoked, or no longer grants a model.
    """
    # A key to a session says until when one may be begun; only its revocation ends one that runs.
    at = datetime.now(UTC) if entry.caller.session is None else entry.started_at
    caller = snapshot.authenticator.authenticate(entry.token.reveal(), at, session_keys=True)
    project = snapshot.projects[caller.project_id]
    for spend in spends:
        require_model(caller, project, entry.match.provider.name, spend.model)


def socket_request(entry: RequestContext[WebSocketEndpoint], subprotocols: tuple[str, ...]) -> WebSocketRequest:
    """What is connected to.

    Raises:
        BadRequest: a header that would go on holds the client's token.
        ServiceError: this server has no key for the provider.
    """
    settings, key = provider_access(entry)
    return WebSocketRequest(
        url=settings.base_url + entry.match.upstream_target,
        headers=tuple(passed_headers(entry)),
        key_headers=tuple(entry.match.provider.key_headers(key).items()),
        subprotocols=_passed_subprotocols(entry, subprotocols),
        max_message_bytes=entry.snapshot.settings.websockets.max_message_mb * MIB,
        connect_timeout_s=entry.snapshot.settings.streams.connect_timeout_s,
        ca_file=settings.ca_file,
    )


def _passed_subprotocols(entry: RequestContext[WebSocketEndpoint], offered: tuple[str, ...]) -> tuple[str, ...]:
    """What goes on of what the client offers: nothing that carries a credential, in whatever form."""
    token = entry.token.reveal()
    return tuple(one for one in offered if not one.startswith(_PRIVATE) and token not in one)


def offered_subprotocols(headers: Headers) -> tuple[str, ...]:
    """What a client offers in `Sec-WebSocket-Protocol`, in its order (RFC 6455 section 4.1)."""
    values = (value for name, value in headers if name.lower() == "sec-websocket-protocol")
    return tuple(one.strip() for value in values for one in value.split(",") if one.strip())
