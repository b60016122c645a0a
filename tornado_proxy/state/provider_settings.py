"""The changes of provider settings: replace, delete, and encrypt again with the first key of the ring.

document {api_key, base_url} ──> KeyRing.seal ──> provider_settings ──> every process ──> stored_accounts.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tornado_proxy.domain.errors import BadRequest, CallerError, NotFound
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.key_ring import CannotOpen, KeyRing, Place, Subject, place_key, place_url
from tornado_proxy.domain.masking import MASK, mask
from tornado_proxy.domain.state import StoredSettings
from tornado_proxy.state import provider_settings_table
from tornado_proxy.state.guarded_changes import Changes
from tornado_proxy.state.store import StateStore

#: Raises PreconditionFailed unless a change of these settings, None if there are none, may be made.
Precondition = Callable[[StoredSettings | None], None]


class PreconditionFailed(CallerError):
    """412: the settings are not in the version that If-Match names (RFC 9110 section 15.5.13)."""

    status = 412


@dataclass(frozen=True, slots=True)
class NewSettings:
    """The settings that a request states; the mask of the present key in place of a key keeps it."""

    api_key: Secret
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """The stored settings before and after a change; None if there were none, or are none."""

    old: StoredSettings | None
    new: StoredSettings | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """What rotate() did: how many settings it encrypted again, and those that the ring does not open."""

    rotated: int
    failed: tuple[Subject, ...]


def find(store: StateStore, subject: Subject) -> StoredSettings:
    """Return the settings of a project for a provider.

    Raises:
        NotFound: there are none.
    """
    with store.reading() as db:
        return _require(provider_settings_table.find(db, subject))


@dataclass(frozen=True, slots=True)
class SettingsEditor:
    """Changes the settings of one project for one provider.

    Attributes:
        subject: Project id and provider.
        actor: Who makes the change.
        precondition: Checked in the transaction of the change.
    """

    subject: Subject
    actor: str
    precondition: Precondition

    def put(self, changes: Changes, new: NewSettings, ring: KeyRing) -> SettingsChange:
        """Replace the settings.

        Raises:
            PreconditionFailed: the present settings are of another version.
            BadRequest: the key is a mask, but not that of the present key.
        """
        with changes.change(self.actor, "provider settings set", "/".join(self.subject)) as db:
            old = provider_settings_table.find(db, self.subject)
            self.precondition(old)
            stored = StoredSettings(
                api_key=self._find_key(new.api_key, old, ring),
                base_url=None if new.base_url is None else ring.seal(Secret(new.base_url), place_url(self.subject)),
                version=provider_settings_table.read_version(db),
                changed_at=datetime.now(UTC),
                changed_by=self.actor,
            )
            provider_settings_table.write(db, self.subject, stored)
        return SettingsChange(old, stored)

    def delete(self, changes: Changes) -> SettingsChange:
        """Remove the settings.

        Raises:
            PreconditionFailed: the present settings are of another version.
            NotFound: there are none.
        """
        with changes.change(self.actor, "provider settings deleted", "/".join(self.subject)) as db:
            old = provider_settings_table.find(db, self.subject)
            self.precondition(old)
            _require(old)
            provider_settings_table.delete(db, self.subject)
        return SettingsChange(old, None)

    def _find_key(self, key: Secret, old: StoredSettings | None, ring: KeyRing) -> str:
        """Return the text to store for a stated key: the present one if it is the mask of that."""
        text = key.reveal()
        if not text.startswith(MASK):
            return ring.seal(key, place_key(self.subject))
        if old is None or text not in (MASK, show_key(old, self.subject, ring)):
            raise BadRequest(
                f"api_key is a mask, but not that of the present key; send the key itself, or {MASK} to keep a present "
                "one",
                param="api_key",
            )
        return old.api_key


def rotate(changes: Changes, actor: str, ring: KeyRing) -> Rotation:
    """Encrypt all settings that another key has encrypted with the first key of the ring.

    Settings that no key opens stay as they are.
    """
    failed: list[Subject] = []
    rotated = 0
    with changes.change(actor, "provider settings encrypted again", ring.keys[0].name) as db:
        for subject, stored in provider_settings_table.read_all(db).items():
            try:
                again = _seal_again(stored, subject, ring)
            except CannotOpen:
                failed.append(subject)
                continue
            if again != stored:
                provider_settings_table.write(db, subject, again)
                rotated += 1
    return Rotation(rotated, tuple(failed))


def show_key(stored: StoredSettings, subject: Subject, ring: KeyRing | None) -> str:
    """Return the mask of a stored key; `****` alone if the ring does not open it."""
    if ring is None:
        return MASK
    try:
        return mask(ring.open(stored.api_key, place_key(subject)))
    except CannotOpen:
        return MASK


def show_url(stored: StoredSettings, subject: Subject, ring: KeyRing | None) -> str | None:
    """Return a stored base URL, None if there is none, or if the ring does not open it."""
    if stored.base_url is None or ring is None:
        return None
    try:
        return ring.open(stored.base_url, place_url(subject)).reveal()
    except CannotOpen:
        return None


def _seal_again(stored: StoredSettings, subject: Subject, ring: KeyRing) -> StoredSettings:
    url = stored.base_url
    return replace(
        stored,
        api_key=_seal_text_again(stored.api_key, place_key(subject), ring),
        base_url=None if url is None else _seal_text_again(url, place_url(subject), ring),
    )


def _seal_text_again(text: str, place: Place, ring: KeyRing) -> str:
    secret = ring.open(text, place)
    return text if ring.is_sealed_with_first(text) else ring.seal(secret, place)


def _require(stored: StoredSettings | None) -> StoredSettings:
    if stored is None:
        raise NotFound("the project has no settings for this provider; PUT sets them")
    return stored
