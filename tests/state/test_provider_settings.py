"""Provider settings in the database of each kind: replaced, kept by their mask, removed, encrypted again."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from tests.state.conftest import MakeStore
from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.key_ring import CannotOpen, parse_key_ring, place_key, place_url
from tornado_proxy.domain.state import StoredSettings
from tornado_proxy.state import provider_settings, provider_settings_table
from tornado_proxy.state.guarded_changes import GuardedChanges
from tornado_proxy.state.provider_settings import NewSettings, PreconditionFailed, SettingsEditor
from tornado_proxy.state.store import StateStore

K1 = "k1:" + base64.b64encode(b"1" * 32).decode()
K2 = "k2:" + base64.b64encode(b"2" * 32).decode()
RING = parse_key_ring(K1)

SUBJECT = ("0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", "openai")
OTHER = ("5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77", "openai")
KEY = Secret("sk-acme-0123456789abcd")


def accept(stored: StoredSettings | None) -> None:
    """Accept every version."""


EDITOR = SettingsEditor(SUBJECT, "admin", accept)


def read_key(store: StateStore) -> str:
    return RING.open(store.read().provider_settings[SUBJECT].api_key, place_key(SUBJECT)).reveal()


def test_settings_are_read_by_another_process(make_store: MakeStore) -> None:
    change = EDITOR.put(make_store(), NewSettings(KEY, "https://eu.api.openai.com"), RING)

    state = make_store().read()

    assert change.old is None
    assert list(state.provider_settings) == [SUBJECT]
    stored = state.provider_settings[SUBJECT]
    assert (stored.version, state.generation, stored.changed_by) == (1, 1, "admin")
    assert change.new is not None
    assert abs(change.new.changed_at - stored.changed_at) < timedelta(milliseconds=1)
    assert RING.open(stored.api_key, place_key(SUBJECT)) == KEY
    assert stored.base_url is not None
    assert RING.open(stored.base_url, place_url(SUBJECT)).reveal() == "https://eu.api.openai.com"
    assert "sk-acme" not in repr(state)
    assert [change.subject for change in make_store().list_changes(0)] == ["/".join(SUBJECT)]


def test_put_replaces_the_whole(store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY, "https://eu.api.openai.com"), RING)

    EDITOR.put(store, NewSettings(Secret("sk-acme-new-0123456789")), RING)

    assert store.read().provider_settings[SUBJECT].base_url is None
    assert read_key(store) == "sk-acme-new-0123456789"


@pytest.mark.parametrize("mask", ["****abcd", "****"])
def test_mask_keeps_the_key(mask: str, store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY), RING)

    changed = EDITOR.put(store, NewSettings(Secret(mask), "https://eu.api.openai.com"), RING)

    assert read_key(store) == KEY.reveal()
    assert changed.new is not None
    assert changed.new.version == 2


@pytest.mark.parametrize("mask", ["****zzzz", "****abcde", "*****"])
def test_mask_of_another_key_changes_nothing(mask: str, store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY), RING)

    with pytest.raises(BadRequest, match="mask"):
        EDITOR.put(store, NewSettings(Secret(mask)), RING)

    assert (read_key(store), store.read_generation()) == (KEY.reveal(), 1)


def test_mask_without_a_key_is_refused(store: StateStore) -> None:
    with pytest.raises(BadRequest, match="mask"):
        EDITOR.put(store, NewSettings(Secret("****")), RING)


def test_deleted_settings_are_gone(store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY), RING)

    EDITOR.delete(store)

    assert store.read().provider_settings == {}
    with pytest.raises(NotFound):
        EDITOR.delete(store)
    with pytest.raises(NotFound):
        provider_settings.find(store, SUBJECT)
    assert store.read_generation() == 2


def test_failed_precondition_changes_nothing(store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY), RING)

    def refuse(stored: StoredSettings | None) -> None:
        assert stored is not None
        assert stored.version == 1
        raise PreconditionFailed("another version")

    for change in (
        lambda: SettingsEditor(SUBJECT, "admin", refuse).put(store, NewSettings(Secret("sk-other-0123456")), RING),
        lambda: SettingsEditor(SUBJECT, "admin", refuse).delete(store),
    ):
        with pytest.raises(PreconditionFailed):
            change()

    assert (read_key(store), store.read_generation()) == (KEY.reveal(), 1)


def test_dry_run_changes_nothing(store: StateStore) -> None:
    EDITOR.put(GuardedChanges(store, dry_run=True), NewSettings(KEY), RING)

    assert store.read().provider_settings == {}


def test_settings_moved_to_another_project_cannot_be_opened(store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY), RING)

    with store.change("intruder", "moved", "") as db:
        db.run("UPDATE provider_settings SET project_id = ?", (OTHER[0],))

    moved = store.read().provider_settings[OTHER]
    with pytest.raises(CannotOpen):
        RING.open(moved.api_key, place_key(OTHER))


def test_rotation_encrypts_all_settings_with_the_first_key(store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY, "https://eu.api.openai.com"), RING)
    SettingsEditor(OTHER, "admin", accept).put(store, NewSettings(KEY), RING)
    both, only_new = parse_key_ring(f"{K2},{K1}"), parse_key_ring(K2)

    assert provider_settings.rotate(store, "cli:ada", both) == provider_settings.Rotation(2, ())

    stored = store.read().provider_settings[SUBJECT]
    assert only_new.open(stored.api_key, place_key(SUBJECT)) == KEY
    assert stored.base_url is not None
    assert only_new.open(stored.base_url, place_url(SUBJECT)).reveal() == "https://eu.api.openai.com"
    assert stored.version == 1  # the document is the same
    assert provider_settings.rotate(store, "cli:ada", only_new) == provider_settings.Rotation(0, ())


def test_rotation_names_the_settings_that_no_key_opens(store: StateStore) -> None:
    EDITOR.put(store, NewSettings(KEY), RING)
    SettingsEditor(OTHER, "admin", accept).put(store, NewSettings(KEY), parse_key_ring(K2))
    k3 = "k3:" + base64.b64encode(b"3" * 32).decode()

    rotation = provider_settings.rotate(store, "cli:ada", parse_key_ring(f"{k3},{K2}"))

    assert rotation == provider_settings.Rotation(1, (SUBJECT,))
    with store.reading() as db:
        assert RING.open(provider_settings_table.read_all(db)[SUBJECT].api_key, place_key(SUBJECT)) == KEY
