"""The section `state`: the key ring, and its faults, which repeat no part of a key."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.harness import SECRETS, write_config
from tornado_proxy.config.loading import load_settings, read_config
from tornado_proxy.domain.key_ring import parse_key_ring

RING = "k2:" + base64.b64encode(b"2" * 32).decode() + ",k1:" + base64.b64encode(b"1" * 32).decode()


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "LLM_PROXY_STATE_KEYS": RING}.items():
        monkeypatch.setenv(name, value)


def write(folder: Path, state: object) -> Path:
    return write_config(folder, "http://127.0.0.1:1", state=state)


def test_key_ring_is_read_from_the_environment(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, {"keys": {"env": "LLM_PROXY_STATE_KEYS"}})).settings

    assert settings.state.keys == parse_key_ring(RING)
    assert RING[3:20] not in repr(settings)


@pytest.mark.parametrize("state", [{}, None], ids=["empty", "missing"])
def test_no_key_ring_by_default(state: object, tmp_path: Path) -> None:
    path = write_config(tmp_path, "http://127.0.0.1:1", **({} if state is None else {"state": state}))

    assert load_settings(path).settings.state.keys is None


def test_faulty_ring_is_a_fault_of_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROXY_STATE_KEYS", "k1:short-text")

    (fault,) = read_config(write(tmp_path, {"keys": {"env": "LLM_PROXY_STATE_KEYS"}})).faults

    assert (fault.key, fault.rule) == ("state.keys", "key 1 of the ring must be the standard base64 of 32 bytes")
    assert fault.line > 0


@pytest.mark.parametrize("state", [{"keys": RING}, {"keys": {"env": RING}}, {"keys": {"text": RING}}])
def test_literal_ring_is_a_fault_that_does_not_repeat_it(state: object, tmp_path: Path) -> None:
    faults = read_config(write(tmp_path, state)).faults

    assert faults[0].key.startswith("state.keys")
    assert RING[3:20] not in "".join(map(str, faults))


def test_variable_that_is_not_set_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_PROXY_STATE_KEYS")

    (fault,) = read_config(write(tmp_path, {"keys": {"env": "LLM_PROXY_STATE_KEYS"}})).faults

    assert fault.rule == "environment variable LLM_PROXY_STATE_KEYS is not set"


def test_private_addresses_are_allowed_only_where_the_provider_says_so(tmp_path: Path) -> None:
    key = {"env": "TEST_OPENAI_KEY"}
    providers = {
        "openai": {"base_url": "https://api.openai.com", "api_key": key, "allow_private": True},
        "anthropic": {"base_url": "https://api.anthropic.com", "api_key": key},
    }
    settings = load_settings(write_config(tmp_path, "http://127.0.0.1:1", providers=providers)).settings

    assert settings.providers["openai"].allow_private
    assert not settings.providers["anthropic"].allow_private
