"""`tornado-proxy state rotate` on a real ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.rated_ledger import run
from tests.harness import SECRETS, STATE_KEYS, write_config
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.key_ring import parse_key_ring, place_key
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state.provider_settings import NewSettings, SettingsEditor
from tornado_proxy.state.store import StateStore

SUBJECT = ("0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", "openai")
K2 = "k2:MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI="


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {**SECRETS, "TEST_STATE_KEYS": f"{K2},{STATE_KEYS}"}.items():
        monkeypatch.setenv(name, value)
    return write_config(tmp_path, "http://127.0.0.1:1", state={"keys": {"env": "TEST_STATE_KEYS"}})


@pytest.fixture
def store(config: Path) -> StateStore:
    store = StateStore(make_backend(config.parent / "ledger.db", fsync=True))
    editor = SettingsEditor(SUBJECT, "admin", lambda stored: None)
    editor.put(store, NewSettings(Secret("sk-acme-0123456789")), parse_key_ring(STATE_KEYS))
    return store


def test_rotation_encrypts_with_the_first_key(config: Path, store: StateStore) -> None:
    done = run("state", "rotate", "--config", config)

    assert (done.exit_code, done.stderr) == (0, "encrypted again with k2: 1\n")
    stored = store.read().provider_settings[SUBJECT].api_key
    assert parse_key_ring(K2).open(stored, place_key(SUBJECT)).reveal() == "sk-acme-0123456789"
    assert store.list_changes(1)[0].actor.startswith("cli:")
    assert run("state", "rotate", "--config", config).stderr == "encrypted again with k2: 0\n"


def test_key_that_the_ring_does_not_open_is_named(
    config: Path, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_STATE_KEYS", K2)

    done = run("state", "rotate", "--config", config)

    assert done.exit_code == 1
    assert f"cannot be decrypted: the openai key of project {SUBJECT[0]}" in done.stderr
    assert store.read().provider_settings[SUBJECT].api_key.startswith("v1.k1.")


def test_configuration_without_a_ring_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("state", "rotate", "--config", write_config(tmp_path, "http://127.0.0.1:1"))

    assert done.exit_code == 1
    assert "state.keys: is required" in done.stderr
