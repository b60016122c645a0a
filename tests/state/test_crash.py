"""A process that is killed while it changes the state leaves the old or the new one, never a part of a change."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from tests.forked_program import start_program
from tests.harness import STATE_KEYS, TIMEOUT_S
from tests.state.conftest import MakeStore
from tornado_proxy.auth.token_cache import compute_digest
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.key_ring import parse_key_ring, place_key, place_url
from tornado_proxy.state import access_keys
from tornado_proxy.state.key_settings import KeySettings

ROUNDS = 3

SUBJECT = ("0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", "openai")


def rotate_until_killed(address: LedgerAddress, key_id: str) -> bytes:
    """Run tests.state.rotating and kill it at a random time; return the digest of the last secret that it printed."""
    url = str(address) if isinstance(address, Path) else address.url
    process = start_program("tests.state.rotating", [url, key_id], os.environ, pipes=["stdout"])
    assert process.stdout is not None
    first = process.stdout.readline()
    # The times at which it is killed are the point of the test: anywhere in the few milliseconds of a change.
    time.sleep(random.uniform(0, 0.05))
    process.kill()
    printed = [first, *process.stdout]
    process.wait(TIMEOUT_S)
    process.stdout.close()
    complete = [line for line in printed if line.endswith("\n")]
    return compute_digest(complete[-1].strip())


def set_keys_until_killed(address: LedgerAddress, start: int) -> int:
    """Run tests.state.setting_keys and kill it at a random time; return the last number that it printed."""
    url = str(address) if isinstance(address, Path) else address.url
    arguments = [url, SUBJECT[0], STATE_KEYS, str(start)]
    process = start_program("tests.state.setting_keys", arguments, os.environ, pipes=["stdout"])
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(random.uniform(0, 0.05))
    process.kill()
    printed = [first, *process.stdout]
    process.wait(TIMEOUT_S)
    process.stdout.close()
    return int([line for line in printed if line.endswith("\n")][-1])


def test_process_killed_while_it_sets_a_provider_key_leaves_the_old_or_the_new_one(
    address: LedgerAddress, make_store: MakeStore
) -> None:
    ring, store, start = parse_key_ring(STATE_KEYS), make_store(), 1
    for _ in range(ROUNDS):
        last = set_keys_until_killed(address, start)

        stored = store.read().provider_settings[SUBJECT]
        assert stored.base_url is not None
        key = ring.open(stored.api_key, place_key(SUBJECT)).reveal()
        url = ring.open(stored.base_url, place_url(SUBJECT)).reveal()
        # The printed change is durable, and the next one was made whole or not at all.
        assert (key, url) in [(f"sk-{number}", f"https://{number}.example") for number in (last, last + 1)]
        start = last + 2


def test_killed_rotation_leaves_the_old_or_the_new_secret(address: LedgerAddress, make_store: MakeStore) -> None:
    store = make_store()
    key, _ = access_keys.create(store, "cli:ada", KeySettings("ci", "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"))

    for _ in range(ROUNDS):
        last = rotate_until_killed(address, key.id)

        state = store.read()
        # The database server may commit the last change of the killed process after the state was read.
        changes = store.list_changes(0)[: state.generation]
        # Each change counted once, and with its rows: one current secret, one before it.
        assert [change.generation for change in changes] == list(range(1, state.generation + 1))
        (current,) = [secret for secret in state.access_keys[last].secrets if secret.valid_until is None]
        (old,) = [secret for secret in state.access_keys[last].secrets if secret.valid_until is not None]
        # The printed secret is the current one, unless the process died between its next change and the next line.
        assert last in (current.digest, old.digest)
        assert set(state.access_keys) == {current.digest, old.digest}
