"""Choose the provider key, base URL and headers of every request that goes to a provider.

    client request   the project's own key, else the server's; a short-lived key of ours opens the provider's own
    settlement       the key that made the request, by its fingerprint
    realtime call    the key that made the call, then the project's or the server's

Nothing else in the program puts a provider key into a request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_plus

from tornado_proxy.auth.credentials import PROJECT_SUBPROTOCOL
from tornado_proxy.config.settings import ProviderSettings
from tornado_proxy.domain.errors import BadRequest, KeyNotConfigured, ServiceError
from tornado_proxy.domain.identity import Caller, Secret
from tornado_proxy.domain.units import MIB
from tornado_proxy.providers.contract import Provider
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest
from tornado_proxy.upstream.websocket.connection import WebSocketRequest
from tornado_proxy.wire.headers import filter_request_headers

Headers = Sequence[tuple[str, str]]

#: Usage can be read from plain bytes only: a response that the provider compresses would hide it.
_IDENTITY = ("Accept-Encoding", "identity")


@dataclass(frozen=True, slots=True)
class ProviderAccess:
    """The address and key with which one caller or project reaches a provider; `key_headers` carry the key."""

    snapshot: Snapshot
    provider: Provider
    settings: ProviderSettings
    key: Secret
    key_headers: tuple[tuple[str, Secret], ...]

    @property
    def key_id(self) -> str:
        """The fingerprint of the key, which a record may store."""
        return fingerprint_key(self.key)

    def client_request(self, method: str, target: str, headers: Headers, body: bytes) -> UpstreamRequest:
        """Return a client's request to the provider; `headers` come from forwarded_headers()."""
        payload = Payload(body) if method == "POST" else None
        return self._http_request(method, target, (*headers, _IDENTITY), payload)

    def own_request(self, method: str, path: str) -> UpstreamRequest:
        """Return a request that the proxy makes on its own, without a body."""
        headers = (("Accept", "application/json"), _IDENTITY, *self.provider.own_headers)
        return self._http_request(method, path, headers, Payload(b"") if method == "POST" else None)

    def websocket_request(self, target: str, headers: Headers, subprotocols: tuple[str, ...]) -> WebSocketRequest:
        """Return the opening request of a WebSocket to the provider."""
        settings = self.snapshot.settings
        return WebSocketRequest(
            url=self.settings.base_url + target,
            headers=tuple(headers),
            key_headers=self.key_headers,
            subprotocols=subprotocols,
            max_message_bytes=settings.websockets.max_message_mb * MIB,
            connect_timeout_s=settings.streams.connect_timeout_s,
            ca_file=self.settings.ca_file,
        )

    def _http_request(self, method: str, target: str, headers: Headers, body: Payload | None) -> UpstreamRequest:
        streams = self.snapshot.settings.streams
        return UpstreamRequest(
            method=method,
            url=self.settings.base_url + target,
            headers=tuple(headers),
            key_headers=self.key_headers,
            body=body,
            connect_timeout_s=streams.connect_timeout_s,
            idle_timeout_s=streams.idle_timeout_s,
            ca_file=self.settings.ca_file,
        )


def project_access(snapshot: Snapshot, provider: Provider, project_id: str) -> ProviderAccess:
    """Return access with the project's own key for `provider`, else with the server's.

    Raises:
        ServiceError: the server is not configured for the provider.
    """
    settings = snapshot.settings.providers.get(provider.name)
    project = snapshot.projects.get(project_id)
    own = project.providers.get(provider.name) if project is not None else None
    if settings is None:
        raise ServiceError(
            f"this server has no key for {provider.name}; add providers.{provider.name} to its configuration",
            code="provider_not_configured",
        )
    return _make_access(snapshot, provider, settings, (settings.keys if own is None else own.keys)[0].secret)


def deferred_access(snapshot: Snapshot, provider: Provider, project_id: str, key_id: str | None) -> ProviderAccess:
    """Return access with the key whose fingerprint is `key_id`, wherever in the configuration it is now.

    An object belongs to the account of the key that made it: with another key the provider responds with 404, and the
    id would be shown to another account.  A record of an earlier version names no key: the project's or the server's
    is used.

    Raises:
        KeyNotConfigured: no key of the configuration has this fingerprint.
        ServiceError: the server is not configured for the provider.
    """
    access = project_access(snapshot, provider, project_id)
    if key_id is None or access.key_id == key_id:
        return access
    projects = snapshot.projects.values()
    keys = [
        *(key.secret for key in access.settings.keys),
        *(
            key.secret
            for project in projects
            if (own := project.providers.get(provider.name)) is not None
            for key in own.keys
        ),
    ]
    for key in keys:
        if fingerprint_key(key) == key_id:
            return _make_access(snapshot, provider, access.settings, key)
    raise KeyNotConfigured(
        f"the provider key {key_id}, which made the request, is not configured; configure it again until it is settled"
    )


def fingerprint_key(key: Secret) -> str:
    """Return the first 12 hexadecimal digits of the key's SHA-256: a name that does not reveal the key."""
    return hashlib.sha256(key.reveal().encode()).hexdigest()[:12]


def caller_access(snapshot: Snapshot, provider: Provider, caller: Caller) -> ProviderAccess:
    """Return access for a caller: a short-lived key of ours opens the provider's own short-lived key.

    Raises:
        ServiceError: the server is not configured for the provider.
    """
    access = project_access(snapshot, provider, caller.project_id)
    if caller.session is None:
        return access
    return _make_access(snapshot, provider, access.settings, caller.session.provider_key)


def _make_access(snapshot: Snapshot, provider: Provider, settings: ProviderSettings, key: Secret) -> ProviderAccess:
    return ProviderAccess(snapshot, provider, settings, key, tuple(provider.key_headers(key).items()))


def call_accesses(made_with: ProviderAccess, project_id: str) -> tuple[ProviderAccess, ...]:
    """Return the accesses that can reach a realtime call: the one that made it, then the project's or the server's.

    A provider knows a call by the kind of key that made it, and a short-lived key can expire before the call ends.
    """
    lasting = project_access(made_with.snapshot, made_with.provider, project_id)
    return (made_with,) if lasting.key == made_with.key else (made_with, lasting)


def forwarded_headers(headers: Headers, access: ProviderAccess, token: Secret) -> Headers:
    """Return the client's headers that are forwarded: the provider's list, and those that the configuration adds.

    Raises:
        BadRequest: one of them holds the client's token.
    """
    provider, extra = access.provider, access.snapshot.settings.forward_headers
    forwarded = filter_request_headers(
        headers,
        allowed=provider.passed_headers | extra if extra else provider.passed_headers,
        prefixes=provider.passed_prefixes,
        withheld=provider.withheld_headers,
    )
    secret = token.reveal()
    for name, value in forwarded:
        # Whole families of headers are forwarded by prefix; some clients copy their key into one of them.
        if secret in value:
            raise BadRequest(f"header {name} holds your token and would be sent to the provider; remove it")
    return forwarded


def forwarded_subprotocols(offered: tuple[str, ...], provider: Provider, token: Secret) -> tuple[str, ...]:
    """Return the subprotocols to offer to the provider: none that carries a credential or chooses an account."""
    private = (PROJECT_SUBPROTOCOL, *(provider.websocket.private_prefixes if provider.websocket is not None else ()))
    secret = token.reveal()
    return tuple(name for name in offered if not name.startswith(private) and secret not in name)


def reject_token_in_target(target: str, token: str) -> None:
    """Raise BadRequest if the request target holds the token: the target is forwarded byte for byte."""
    if token in target or token in unquote_plus(target):
        raise BadRequest("the path or query holds your token; send it in the Authorization header only")
