"""The provider accounts of projects that were set over REST: decrypts the settings of the state.

Settings that the key ring does not open give an account without keys: requests of that project fail, and never use a
key of the server in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tornado_proxy.domain.config.base_url import normalize_base_url
from tornado_proxy.domain.identity import ProjectProvider, ProviderKey
from tornado_proxy.domain.key_ring import CannotOpen, KeyRing, Subject, place_key, place_url
from tornado_proxy.domain.state import StoredSettings
from tornado_proxy.providers.registry import PROVIDERS

_log = logging.getLogger(__name__)

#: The name of a key that was set over REST, in records.
KEY_NAME = "settings"

_REGIONAL_HOSTS = {provider.name: provider.price_lists.regional_hosts for provider in PROVIDERS}


@dataclass(frozen=True, slots=True)
class StoredAccounts:
    """The accounts of one generation of the state.

    Attributes:
        rows: The stored settings, by project id and provider.
        ring: The key ring of the configuration; None if it has none.
        accounts: The account of each row; one without keys if the ring does not open it.
    """

    rows: Mapping[Subject, StoredSettings] = field(default_factory=dict)
    ring: KeyRing | None = None
    accounts: Mapping[Subject, ProjectProvider] = field(default_factory=dict)

    def update(self, rows: Mapping[Subject, StoredSettings], ring: KeyRing | None) -> StoredAccounts:
        """Return the accounts of other rows or with another ring; it decrypts only what differs."""
        if ring == self.ring and rows == self.rows:
            return self
        known = self.rows if ring == self.ring else {}
        accounts = {
            subject: self.accounts[subject] if known.get(subject) == row else _open_account(subject, row, ring)
            for subject, row in rows.items()
        }
        return StoredAccounts(rows, ring, accounts)


def _open_account(subject: Subject, row: StoredSettings, ring: KeyRing | None) -> ProjectProvider:
    try:
        if ring is None:
            raise CannotOpen("the configuration has no state.keys")
        key = ring.open(row.api_key, place_key(subject))
        url = None if row.base_url is None else ring.open(row.base_url, place_url(subject)).reveal()
    except CannotOpen as error:
        _log.error(
            "provider settings cannot be opened; requests of the project fail",
            extra={"project_id": subject[0], "provider": subject[1], "reason": str(error)},
        )
        return ProjectProvider(keys=())
    return ProjectProvider(
        keys=(ProviderKey(KEY_NAME, key),),
        base_url=None if url is None else normalize_base_url(url),
        region=None if url is None else _find_region(subject[1], url),
        public_only=True,
    )


def _find_region(provider: str, url: str) -> str | None:
    return _REGIONAL_HOSTS.get(provider, {}).get(urlsplit(url).hostname or "")
