from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.state.conftest import MakeStore
from tornado_proxy.auth.token_cache import compute_digest
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.domain.identity import ModelPatterns
from tornado_proxy.domain.state import State
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.sqlite import database as sqlite_database
from tornado_proxy.state import access_keys
from tornado_proxy.state.key_settings import KeySettings
from tornado_proxy.state.store import StateStore

SETTINGS = KeySettings(
    name="build server",
    project_id="0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10",
    participant="ci",
    models=ModelPatterns(("openai/gpt-5*",)),
    expires_at=datetime(2999, 1, 1, tzinfo=UTC),
    labels={"team": "é"},
)


def test_new_database_has_no_keys_and_generation_0(store: StateStore) -> None:
    assert store.read() == State(0, {})
    assert store.read_generation() == 0


def test_created_key_is_read_by_another_process_under_its_digest(make_store: MakeStore) -> None:
    key, secret = access_keys.create(make_store(), "cli:ada", SETTINGS)

    state = make_store().read()

    assert state.generation == 1
    read = state.access_keys[compute_digest(secret.reveal())]
    assert (read.id, read.name, read.participant) == (key.id, "build server", "ci")
    assert (read.project_id, read.models) == (SETTINGS.project_id, ModelPatterns(("openai/gpt-5*",)))
    assert (read.expires_at, read.labels) == (datetime(2999, 1, 1, tzinfo=UTC), {"team": "é"})
    assert len(state.access_keys) == 1


def test_key_without_a_list_of_models_differs_from_one_with_an_empty_list(store: StateStore) -> None:
    access_keys.create(store, "cli:ada", KeySettings("all", SETTINGS.project_id))
    access_keys.create(store, "cli:ada", KeySettings("none", SETTINGS.project_id, models=ModelPatterns(())))

    assert [key.models.patterns for key in access_keys.list_keys(store)] == [None, ()]


def test_rotation_keeps_two_secrets_and_a_second_one_ends_the_oldest(store: StateStore) -> None:
    key, first = access_keys.create(store, "cli:ada", SETTINGS)
    _, second = access_keys.rotate(store, "cli:ada", key.id, timedelta(hours=1))
    state = store.read()
    old = state.access_keys[compute_digest(first.reveal())].secrets

    assert [secret.digest for secret in old] == [compute_digest(text.reveal()) for text in (second, first)]
    assert old[0].valid_until is None
    assert old[1].valid_until is not None
    assert timedelta(minutes=59) < old[1].valid_until - datetime.now(UTC) <= timedelta(hours=1)

    _, third = access_keys.rotate(store, "cli:ada", key.id, timedelta(hours=1))

    assert set(store.read().access_keys) == {compute_digest(text.reveal()) for text in (second, third)}


def test_revoked_key_is_listed_and_not_in_the_state(store: StateStore) -> None:
    key, _ = access_keys.create(store, "cli:ada", SETTINGS)

    revoked = access_keys.revoke(store, "cli:ada", key.id)

    assert store.read() == State(2, {})
    assert revoked.revoked_at is not None
    assert access_keys.list_keys(store) == [revoked]
    for change in (
        lambda: access_keys.revoke(store, "cli:ada", key.id),
        lambda: access_keys.rotate(store, "cli:ada", key.id, timedelta()),
    ):
        with pytest.raises(BadRequest, match="was revoked at"):
            change()
    assert store.read_generation() == 2


def test_imported_digest_cannot_be_imported_again_even_after_it_was_revoked(store: StateStore) -> None:
    digest = compute_digest("sk-from-another-gateway")
    key = access_keys.import_digest(store, "cli:ada", SETTINGS, digest)
    with pytest.raises(BadRequest, match="exists already"):
        access_keys.import_digest(store, "cli:ada", SETTINGS, digest)
    access_keys.revoke(store, "cli:ada", key.id)

    with pytest.raises(BadRequest, match="exists already"):
        access_keys.import_digest(store, "cli:ada", SETTINGS, digest)
    # A refused change leaves neither a key nor a generation.
    assert [listed.id for listed in access_keys.list_keys(store)] == [key.id]
    assert store.read_generation() == 2


@pytest.mark.parametrize("key_id", ["ak_unknown", "", "' OR 1=1 --"])
def test_unknown_id_changes_nothing(store: StateStore, key_id: str) -> None:
    access_keys.create(store, "cli:ada", SETTINGS)

    with pytest.raises(NotFound, match="there is no access key"):
        access_keys.revoke(store, "cli:ada", key_id)
    with pytest.raises(NotFound, match="there is no access key"):
        access_keys.rotate(store, "cli:ada", key_id, timedelta())
    assert store.read_generation() == 1


def test_key_that_expired_long_ago_is_listed_and_not_in_the_state(store: StateStore) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=8)
    recently = datetime.now(UTC) - timedelta(days=6)
    for expires_at in (long_ago, recently):
        access_keys.create(store, "cli:ada", KeySettings("expired", SETTINGS.project_id, expires_at=expires_at))

    assert len(access_keys.list_keys(store)) == 2
    assert len(store.read().access_keys) == 1


def test_each_change_is_kept_with_its_time_and_actor(store: StateStore) -> None:
    key, _ = access_keys.create(store, "cli:ada", SETTINGS)
    access_keys.rotate(store, "cli:bob", key.id, timedelta(hours=1))
    access_keys.revoke(store, "admin", key.id)

    changes = store.list_changes(0)

    assert [(change.generation, change.actor, change.action, change.subject) for change in changes] == [
        (1, "cli:ada", "access key created", key.id),
        (2, "cli:bob", "access key rotated", key.id),
        (3, "admin", "access key revoked", key.id),
    ]
    assert all(abs(datetime.now(UTC) - change.at) < timedelta(minutes=1) for change in changes)
    assert [change.generation for change in store.list_changes(2)] == [3]


def test_changes_of_several_processes_at_the_same_time_are_all_kept(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "_BUSY_TIMEOUT_MS", 60_000)  # SQLite serves those that wait in no order
    stores = [make_store() for _ in range(4)]
    failures: list[BaseException] = []

    def create_keys(store: StateStore) -> None:
        try:
            for _ in range(5):
                access_keys.create(store, "cli:ada", SETTINGS)
        except BaseException as error:  # noqa: BLE001  # the main thread asserts that there was none
            failures.append(error)

    threads = [threading.Thread(target=create_keys, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)

    assert failures == []
    state = make_store().read()
    assert (state.generation, len(state.access_keys)) == (20, 20)
    assert [change.generation for change in stores[0].list_changes(0)] == list(range(1, 21))


async def open_and_close_ledger(address: LedgerAddress) -> None:
    ledger = make_ledger(address)
    await ledger.open()
    await ledger.close()


def test_state_and_ledger_share_a_database_whichever_opens_it_first(
    address: LedgerAddress, make_store: MakeStore
) -> None:
    store = make_store()
    access_keys.create(store, "cli:ada", SETTINGS)
    asyncio.run(open_and_close_ledger(address))
    access_keys.create(store, "cli:ada", SETTINGS)
    store.close()
    asyncio.run(open_and_close_ledger(address))

    assert len(make_store().read().access_keys) == 2


def test_damaged_row_is_an_error_of_the_store(store: StateStore) -> None:
    access_keys.create(store, "cli:ada", SETTINGS)
    with store.change("test", "damage", "models") as db:
        db.run("UPDATE access_keys SET models = ?", ("[1, ",))

    with pytest.raises(StoreError, match="a row of the state is damaged"):
        store.read()
