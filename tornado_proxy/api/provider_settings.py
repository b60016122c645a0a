"""The settings of a project for a provider over REST: `{api_key, base_url}`, for the admin port and the client port.

GET      show()           api_key masked
PUT      read_document()  replaces the whole; the mask of the present key keeps it
DELETE
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from tornado_proxy.config.sections.providers import ENDPOINT_PATHS
from tornado_proxy.config.settings import ProviderSettings
from tornado_proxy.domain.config.base_url import find_base_url_fault
from tornado_proxy.domain.config.loopback import is_secure_url
from tornado_proxy.domain.errors import BadRequest, InvalidBody, NotFound, SettingsUnavailable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.key_ring import KeyRing, Subject
from tornado_proxy.domain.state import StoredSettings
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.state.guarded_changes import Changes
from tornado_proxy.state.provider_settings import (
    NewSettings,
    PreconditionFailed,
    SettingsChange,
    SettingsEditor,
    find,
    show_key,
    show_url,
)
from tornado_proxy.state.store import StateStore
from tornado_proxy.upstream.address_guard import find_literal_address, is_public

_API_KEY = re.compile(r"[!-~]{1,1000}")
_MAX_URL_CHARACTERS = 2000


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    api_key: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class ShownSettings:
    """Settings with a masked key, and the ETag of their version."""

    document: Mapping[str, object]
    etag: str


@dataclass(frozen=True, slots=True)
class ShownChange:
    """The masked documents before and after a change, None if there was or is none, and the ETag after it."""

    old: Mapping[str, object] | None
    new: Mapping[str, object] | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class SettingsResource:
    """The settings of one project for one provider, in one configuration.

    Attributes:
        subject: Project id and provider.
        provider: The provider in the configuration.
        ring: The key ring of the configuration; None if it has none.
    """

    subject: Subject
    provider: ProviderSettings
    ring: KeyRing | None

    def read(self, store: StateStore) -> ShownSettings:
        """Return the present settings.

        Raises:
            NotFound: there are none.
            SettingsUnavailable: the configuration has no key ring.
        """
        ring = self._require_ring()
        stored = find(store, self.subject)
        return ShownSettings(self._show(stored, ring), make_etag(stored))

    def put(self, changes: Changes, request: ChangeRequest) -> ShownChange:
        """Replace the settings by the document of a request.

        Raises:
            BadRequest: the document breaks a rule.
            SettingsUnavailable: the configuration has no key ring.
            PreconditionFailed: the present settings have another version.
        """
        new = read_document(request.body, allow_private=self.provider.allow_private)
        ring = self._require_ring()
        return self._show_change(self._make_editor(request).put(changes, new, ring))

    def delete(self, changes: Changes, request: ChangeRequest) -> ShownChange:
        """Remove the settings; that needs no key ring.

        Raises:
            NotFound: there are none.
            PreconditionFailed: the present settings have another version.
        """
        return self._show_change(self._make_editor(request).delete(changes))

    def _make_editor(self, request: ChangeRequest) -> SettingsEditor:
        return SettingsEditor(self.subject, request.actor, request.check_version)

    def _require_ring(self) -> KeyRing:
        if self.ring is None:
            raise SettingsUnavailable(
                "the server has no key ring, so it stores no provider keys; the operator must set state.keys"
            )
        return self.ring

    def _show_change(self, change: SettingsChange) -> ShownChange:
        shown = [None if stored is None else self._show(stored, self.ring) for stored in (change.old, change.new)]
        return ShownChange(shown[0], shown[1], None if change.new is None else make_etag(change.new))

    def _show(self, stored: StoredSettings, ring: KeyRing | None) -> Mapping[str, object]:
        return {"api_key": show_key(stored, self.subject, ring), "base_url": show_url(stored, self.subject, ring)}


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A request to change settings.

    Attributes:
        actor: Who makes the change.
        body: The document of a PUT.
        if_match: The value of the header If-Match, None without it.
        if_none_match: That of If-None-Match.
    """

    actor: str
    body: bytes = b""
    if_match: str | None = None
    if_none_match: str | None = None

    def check_version(self, stored: StoredSettings | None) -> None:
        """Raise PreconditionFailed unless the headers allow a change of `stored` (RFC 9110 section 13.1)."""
        if self.if_match is not None:
            named = {tag.strip() for tag in self.if_match.split(",")}
            if stored is None or not named & {"*", make_etag(stored)}:
                raise PreconditionFailed(
                    "the settings are not in the version of If-Match; read them again", code="precondition_failed"
                )
        if self.if_none_match is not None and stored is not None:
            named = {tag.strip().removeprefix("W/") for tag in self.if_none_match.split(",")}
            if named & {"*", make_etag(stored)}:
                raise PreconditionFailed(
                    "the settings are in a version of If-None-Match; read them", code="precondition_failed"
                )


def find_resource(snapshot: Snapshot, subject: Subject) -> SettingsResource:
    """Return the settings of a project for a provider.

    Raises:
        NotFound: the configuration has no such project or provider.
    """
    project_id, name = subject
    if project_id not in snapshot.projects:
        raise NotFound("there is no such project; GET /v1/projects on the admin port lists them")
    provider = snapshot.settings.providers.get(name)
    if provider is None:
        raise NotFound(f"there is no such provider; the providers are {', '.join(snapshot.settings.providers)}")
    return SettingsResource(subject, provider, snapshot.settings.state.keys)


def make_etag(stored: StoredSettings) -> str:
    """Return the ETag of settings (RFC 9110 section 8.8.3)."""
    return f'"{stored.version}"'


def read_document(body: bytes, *, allow_private: bool) -> NewSettings:
    """Return the settings of a PUT.

    Args:
        body: The JSON document.
        allow_private: True if the base URL may lead to an address that is not public.

    Raises:
        BadRequest: the document has another form, or a member breaks a rule.
    """
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec names the path and the expected type, never the value.
        raise InvalidBody(f"the body is not a valid document: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if not document.api_key:
        raise BadRequest("api_key is required; a base_url is used with a key of the project only", param="api_key")
    if not _API_KEY.fullmatch(document.api_key):
        raise BadRequest("api_key must be 1 to 1000 printable ASCII characters without spaces", param="api_key")
    if document.base_url is not None:
        check_base_url(document.base_url, allow_private=allow_private)
    return NewSettings(Secret(document.api_key), document.base_url)


def check_base_url(url: str, *, allow_private: bool) -> None:
    """Raise BadRequest unless a base URL may be set over REST; its name is looked up later, with each connection."""
    if len(url) > _MAX_URL_CHARACTERS:
        raise BadRequest(f"base_url must have at most {_MAX_URL_CHARACTERS} characters", param="base_url")
    fault = find_base_url_fault(url, ENDPOINT_PATHS)
    if fault is None and not is_secure_url(url):
        fault = "must be https, or http to a loopback address"
    if fault is None and not allow_private and not _may_be_public(urlsplit(url).hostname or ""):
        fault = "must not be a loopback, private or link-local address, unless the operator sets allow_private"
    if fault is not None:
        raise BadRequest(f"base_url {fault}", param="base_url")


def _may_be_public(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
        return False
    literal = find_literal_address(name)
    return literal is None or is_public(literal)
