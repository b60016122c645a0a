"""Choose the provider key, base URL and headers of every request that goes to a provider.

    client request   a key of the project's own account, else of the server's, in turn (key_rotation.py)
    with an object   the key that made the object
    session key      a short-lived key of ours opens the provider's own
    settlement       the key that made the request
    realtime call    the key that made the call, then the lasting one

Nothing else in the program puts a provider key into a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote_plus

import msgspec
from msgspec import structs

from tornado_proxy.auth.credentials import PROJECT_SUBPROTOCOL
from tornado_proxy.config.settings import ProviderSettings
from tornado_proxy.domain.errors import BadRequest, KeyNotConfigured, NotFound, ServiceError, SettingsUnavailable
from tornado_proxy.domain.identity import (
    Caller,
    KeyId,
    Project,
    ProjectProvider,
    ProviderKey,
    Secret,
    SessionGrant,
    fingerprint_key,
)
from tornado_proxy.domain.units import MIB
from tornado_proxy.key_rotation import TELLING_STATUSES
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import Provider
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.upstream.http.messages import Payload, UpstreamRequest
from tornado_proxy.upstream.websocket.connection import WebSocketRequest
from tornado_proxy.wire.headers import filter_request_headers

Headers = Sequence[tuple[str, str]]

#: Usage can be read from plain bytes only: a response that the provider compresses would hide it.
_IDENTITY = ("Accept-Encoding", "identity")


class ProviderAccess(msgspec.Struct, frozen=True):
    """The account and key with which one caller or project reaches a provider; `key_headers` carry the key.

    Attributes:
        settings: Those of the account: of the server, or with the project's own address and keys.
        made_with: Identifies the lasting key: a short-lived one is sent in place of the key that requested it.
        own: True if the account is the project's own, which no other project uses.
        exclusive: True if no other project uses the key, so that the account's quota may be shown.
        tariff: The prices of requests with this access.
    """

    snapshot: Snapshot
    provider: Provider
    settings: ProviderSettings
    key: Secret
    key_headers: tuple[tuple[str, Secret], ...]
    project_id: str
    made_with: KeyId
    provider_key_ids: Mapping[str, str]
    own: bool
    exclusive: bool
    tariff: Tariff

    def uses(self, key: KeyId) -> bool:
        """Return True if the access has the key that made an object, or the one of its name that replaced it."""
        own = self.made_with
        return own.fingerprint == key.fingerprint or (own.name, own.own) == (key.name, key.own)

    def holds(self, key: KeyId) -> bool:
        """Return True if the account has the key that made an object."""
        same = (one for one in self.settings.keys if one.fingerprint == key.fingerprint or one.name == key.name)
        return self.uses(key) or (self.own and key.own and any(same))

    def note_response(self, status: int, retry_after: str | None) -> None:
        """Set the key aside if a response says that it cannot be used for a time; a short-lived key is in no turn."""
        key = self.made_with
        if status in TELLING_STATUSES and fingerprint_key(self.key) == key.fingerprint:
            self.snapshot.key_rotation.note_response(self.provider.name, key, status, retry_after)

    def client_request(self, method: str, target: str, headers: Headers, *body: bytes | memoryview) -> UpstreamRequest:
        """Return a client's request to the provider; `headers` come from forwarded_headers(), `body` is in pieces."""
        payload = Payload(*body) if method == "POST" else None
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
            public_only=self.settings.public_only,
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
            public_only=self.settings.public_only,
        )


def project_access(snapshot: Snapshot, provider: Provider, project_id: str, *, sticky: bool = False) -> ProviderAccess:
    """Return access with a key of the project's own account at `provider`, else with one of the server's.

    With `sticky` all requests of a project get the same key while it is not set aside; else keys are used in turn.

    Raises:
        ServiceError: the server is not configured for the provider.
    """
    accesses = list_accesses(snapshot, provider, project_id)
    if len(accesses) == 1:
        return accesses[0]
    owner, keys = project_id if accesses[0].own else "", accesses[0].settings.keys
    chosen = snapshot.key_rotation.choose((provider.name, owner), keys, sticky=project_id if sticky else None)
    return accesses[keys.index(chosen)]


def list_accesses(snapshot: Snapshot, provider: Provider, project_id: str) -> tuple[ProviderAccess, ...]:
    """Return access with each key of the account that a project uses, in the order of the configuration.

    Raises:
        ServiceError: the server is not configured for the provider.
    """
    known: dict[tuple[str, str], tuple[ProviderAccess, ...]] = snapshot.caches[__name__]
    accesses = known.get((provider.name, project_id))
    if accesses is None:
        account = _list_accounts(snapshot, provider, project_id)[0]
        accesses = tuple(_make_access(snapshot, provider, project_id, account, key) for key in account.settings.keys)
        known[provider.name, project_id] = accesses
    return accesses


def find_access(snapshot: Snapshot, provider: Provider, project_id: str, made_with: KeyId) -> ProviderAccess:
    """Return access with the key that made an object or request of the project.

    An object belongs to the account of the key that made it: with another key the provider responds with 404, and the
    id would be shown to another account.  The key is found by its secret, whether it is the project's or the server's
    now, else by its name: then its secret was replaced.

    Raises:
        KeyNotConfigured: neither the project nor the server has the key.
        ServiceError: the server is not configured for the provider.
    """
    accounts = _list_accounts(snapshot, provider, project_id)
    for account in accounts:
        for key in account.settings.keys:
            if key.fingerprint == made_with.fingerprint:
                return _make_access(snapshot, provider, project_id, account, key)
    for account in accounts:
        for key in account.settings.keys:
            if key.name == made_with.name and account.own == made_with.own:
                return _make_access(snapshot, provider, project_id, account, key)
    raise KeyNotConfigured(
        f"the provider key {made_with.fingerprint}, which made the request, is not configured; configure it again "
        "until it is settled"
    )


def deferred_access(snapshot: Snapshot, provider: Provider, project_id: str, made_with: KeyId | None) -> ProviderAccess:
    """Return access with the key that made a request, also if it belongs to another project now.

    A record of an earlier version names no key: one of the project's or the server's is used.

    Raises:
        KeyNotConfigured: no key of the configuration made the request.
        ServiceError: the server is not configured for the provider.
    """
    if made_with is None:
        return project_access(snapshot, provider, project_id)
    try:
        return find_access(snapshot, provider, project_id, made_with)
    except KeyNotConfigured:
        for project in snapshot.projects.values():
            for account in _list_own_accounts(snapshot, provider, project):
                for key in account.settings.keys:
                    if key.fingerprint == made_with.fingerprint:
                        return _make_access(snapshot, provider, project_id, account, key)
        raise


def caller_access(
    snapshot: Snapshot, provider: Provider, caller: Caller, made_with: KeyId | None = None, *, sticky: bool = False
) -> ProviderAccess:
    """Return access for a caller: a short-lived key of ours opens the provider's own short-lived key.

    Args:
        snapshot: The configuration.
        provider: The provider.
        caller: The caller.
        made_with: The key that made the object to which the request refers, None if it refers to none.
        sticky: See project_access().

    Raises:
        NotFound: the key that made the object is not configured any more.
        ServiceError: the server is not configured for the provider.
    """
    if caller.session is not None:
        return _session_access(snapshot, provider, caller.project_id, caller.session)
    if made_with is None:
        return project_access(snapshot, provider, caller.project_id, sticky=sticky)
    return _find_configured(snapshot, provider, caller.project_id, made_with)


def call_accesses(made_with: ProviderAccess) -> tuple[ProviderAccess, ...]:
    """Return the accesses that can reach a realtime call: the one that made it, then one with a lasting key.

    A provider knows a call by the kind of key that made it, and a short-lived key can expire before the call ends.
    """
    snapshot, provider, project_id = made_with.snapshot, made_with.provider, made_with.project_id
    lasting = deferred_access(snapshot, provider, project_id, made_with.made_with)
    return (made_with,) if lasting.key == made_with.key else (made_with, lasting)


@dataclass(frozen=True, slots=True)
class _Account:
    """The address and keys of the server or, if `own`, of a project at one provider."""

    settings: ProviderSettings
    own: bool


def _list_accounts(snapshot: Snapshot, provider: Provider, project_id: str) -> tuple[_Account, ...]:
    """Return the accounts that a project can use, its own first.

    Raises:
        ServiceError: the server is not configured for the provider.
        SettingsUnavailable: the settings of the project cannot be decrypted.
    """
    settings = snapshot.settings.providers.get(provider.name)
    if settings is None:
        raise ServiceError(
            f"this server has no key for {provider.name}; add providers.{provider.name} to its configuration",
            code="provider_not_configured",
        )
    project = snapshot.projects.get(project_id)
    own = () if project is None else _list_own_accounts(snapshot, provider, project)
    if own and not own[0].settings.keys:
        # The server's key in its place would bill the project's requests to another account.
        raise SettingsUnavailable(
            f"the {provider.title} key of this project cannot be decrypted; the operator must add its key to "
            "state.keys, or the key must be set again"
        )
    return (*own, _Account(settings, own=False))


def _list_own_accounts(snapshot: Snapshot, provider: Provider, project: Project) -> tuple[_Account, ...]:
    """Return the account that a project uses, then that of its file if the state has another one in its place."""
    settings = snapshot.settings.providers.get(provider.name)
    found = (snapshot.find_account(project.id, provider.name), project.providers.get(provider.name))
    distinct = found[:1] if found[0] is found[1] else found
    return tuple(
        _own_account(settings, account) for account in distinct if account is not None and settings is not None
    )


def _own_account(server: ProviderSettings, own: ProjectProvider) -> _Account:
    if own.base_url is None:
        return _Account(replace(server, keys=own.keys), own=True)
    # An address of the project's own is reached with its own keys alone: the server's are never sent there.
    settings = ProviderSettings(
        own.base_url, own.keys, own.ca_file, own.region, public_only=own.public_only and not server.allow_private
    )
    return _Account(settings, own=True)


def _session_access(snapshot: Snapshot, provider: Provider, project_id: str, session: SessionGrant) -> ProviderAccess:
    """Return access with the provider's short-lived key, at the address where it was requested."""
    # The holder of the project's API key can write any session key, so another project's account is out of reach.
    made_with = session.made_with
    if made_with is None:
        lasting = project_access(snapshot, provider, project_id)
    else:
        lasting = _find_configured(snapshot, provider, project_id, made_with)
    key = session.provider_key
    return structs.replace(lasting, key=key, key_headers=tuple(provider.key_headers(key).items()))


def _find_configured(snapshot: Snapshot, provider: Provider, project_id: str, made_with: KeyId) -> ProviderAccess:
    try:
        return find_access(snapshot, provider, project_id, made_with)
    except KeyNotConfigured:
        raise NotFound("the object was not found: the provider key that made it is not configured any more") from None


def _make_access(
    snapshot: Snapshot, provider: Provider, project_id: str, account: _Account, key: ProviderKey
) -> ProviderAccess:
    made_with = KeyId(key.name, key.fingerprint, account.own)
    tariff = snapshot.find_tariff(provider.name, project_id, own=account.own)
    return ProviderAccess(
        snapshot=snapshot,
        provider=provider,
        settings=account.settings,
        key=key.secret,
        key_headers=tuple(provider.key_headers(key.secret).items()),
        project_id=project_id,
        made_with=made_with,
        provider_key_ids=key.provider_ids,
        own=account.own,
        exclusive=account.own and snapshot.has_own_key(project_id, provider.name),
        tariff=snapshot.add_discount(tariff, project_id, made_with),
    )


def renew_prices(access: ProviderAccess, snapshot: Snapshot) -> ProviderAccess:
    """Return the access of a session with the prices of `snapshot`; the region stays that of the connected host."""
    tariff = snapshot.find_tariff(access.provider.name, access.project_id, own=access.own)
    tariff = replace(tariff, provider_region=access.tariff.provider_region)
    return structs.replace(access, tariff=snapshot.add_discount(tariff, access.project_id, access.made_with))


def forwarded_headers(headers: Headers, access: ProviderAccess, token: str) -> Headers:
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
    for name, value in forwarded:
        # Whole families of headers are forwarded by prefix; some clients copy their key into one of them.
        if token in value:
            raise BadRequest(f"header {name} holds your token and would be sent to the provider; remove it")
    return forwarded


def forwarded_subprotocols(offered: tuple[str, ...], provider: Provider, token: Secret) -> tuple[str, ...]:
    """Return the subprotocols to offer to the provider: none that carries a credential or chooses an account."""
    private = (PROJECT_SUBPROTOCOL, *(provider.websocket.private_prefixes if provider.websocket is not None else ()))
    secret = token.reveal()
    return tuple(name for name in offered if not name.startswith(private) and secret not in name)


def reject_token_in_target(target: str, token: str) -> None:
    """Raise BadRequest if the request target holds the token: the target is forwarded byte for byte."""
    if token in target or (("%" in target or "+" in target) and token in unquote_plus(target)):
        raise BadRequest("the path or query holds your token; send it in the Authorization header only")
