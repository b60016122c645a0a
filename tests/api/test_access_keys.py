from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tornado_proxy.api.access_keys import read_creation, read_import, read_rotation, show_key, show_keys, show_secret
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.identity import ModelPatterns, Secret
from tornado_proxy.domain.state import AccessKey, KeySecret
from tornado_proxy.state.key_settings import KeySettings

PROJECT = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DIGEST = "ab" * 32


def make_body(**changes: Any) -> bytes:
    return json.dumps({"name": "build server", "project_id": PROJECT, **changes}).encode()


def test_document_of_a_key_is_read_with_all_its_members() -> None:
    body = make_body(
        participant="ci", models=["openai/*"], expires_at="2026-11-23T13:30:00+01:00", labels={"team": "web"}
    )

    assert read_creation(body, {PROJECT}, NOW) == KeySettings(
        "build server",
        PROJECT,
        "ci",
        ModelPatterns(("openai/*",)),
        datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
        {"team": "web"},
    )


def test_shortest_document_allows_all_models_and_never_expires() -> None:
    assert read_creation(make_body(), {PROJECT}, NOW) == KeySettings("build server", PROJECT)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "the body is not a valid document", id="empty"),
        pytest.param(b"{", "the body is not a valid document", id="cut"),
        pytest.param(b"[]", "expected `object`, got `array`", id="list"),
        pytest.param(b'{"name": "\xff"}', "the body is not a valid document", id="not UTF-8"),
        pytest.param(make_body(name=None), "expected `str`, got `null` - at `$.name`", id="null name"),
        pytest.param(make_body(models="openai/*"), "expected `array | null`, got `str` - at `$.models`", id="models"),
        pytest.param(make_body(model=["openai/*"]), "object contains unknown field `model`", id="unknown member"),
        pytest.param(make_body(secret="tp_mine"), "object contains unknown field `secret`", id="own secret"),
        pytest.param(make_body(labels={"a": 1}), "expected `str`, got `int`", id="label is a number"),
        pytest.param(make_body(expires_at="2027-01-01T00:00:00"), "expires_at", id="time without a zone"),
        pytest.param(make_body(expires_at="2026-11-23T12:00:00Z"), "is in the past; use a later time", id="past"),
        pytest.param(make_body(project_id="other"), "project 'other' is not in the configuration", id="project"),
        pytest.param(make_body(name=" "), "name must have 1 to 200 printable characters", id="blank name"),
        pytest.param(make_body(name="n" * 201), "name must have 1 to 200 printable characters", id="long name"),
        pytest.param(make_body(name="a\u202eb"), "name must have 1 to 200 printable characters", id="bidi override"),
        pytest.param(make_body(models=["gpt-5"]), "'gpt-5' matches no model", id="pattern"),
        pytest.param(make_body(models=["a/b"] * 101), "models can have 100 patterns, not 101", id="many patterns"),
        pytest.param(make_body(labels={"a b": "c"}), "label name 'a b' must have", id="label name"),
        pytest.param(make_body(labels={"a": ""}), "label a must have a value of 1 to 256", id="empty label"),
        pytest.param(
            make_body(labels={f"a{n}": "b" for n in range(33)}), "labels can have 32 members, not 33", id="many labels"
        ),
    ],
)
def test_invalid_document_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_creation(body, {PROJECT}, NOW)

    assert message in raised.value.message


def test_import_has_the_digest_of_the_key_as_well() -> None:
    settings, digest = read_import(make_body(sha256=DIGEST), {PROJECT}, NOW)

    assert (settings, digest) == (KeySettings("build server", PROJECT), bytes.fromhex(DIGEST))
    with pytest.raises(BadRequest, match="missing required field `sha256`"):
        read_import(make_body(), {PROJECT}, NOW)
    with pytest.raises(BadRequest, match="must have 64 hexadecimal digits") as raised:
        read_import(make_body(sha256="sk-secret"), {PROJECT}, NOW)
    assert "sk-secret" not in raised.value.message


@pytest.mark.parametrize(
    ("body", "grace"),
    [
        (b"", timedelta(days=1)),
        (b"{}", timedelta(days=1)),
        (b'{"grace_s": 0}', timedelta()),
        (b'{"grace_s": 60}', timedelta(minutes=1)),
    ],
)
def test_rotation_has_a_grace_period_of_a_day_unless_it_states_another(body: bytes, grace: timedelta) -> None:
    assert read_rotation(body) == grace


@pytest.mark.parametrize("grace_s", [-1, 366 * 86400, 10**18])
def test_rotation_with_another_grace_period_is_refused(grace_s: int) -> None:
    with pytest.raises(BadRequest, match="the grace period must be between 0 and 365 days"):
        read_rotation(json.dumps({"grace_s": grace_s}).encode())


def test_shown_key_holds_neither_secret_nor_digest() -> None:
    secrets = (KeySecret(bytes.fromhex(DIGEST)), KeySecret(bytes.fromhex("cd" * 32), NOW))
    key = AccessKey("ak_1", "ci", PROJECT, None, ModelPatterns(()), None, {}, NOW, None, secrets)

    shown = show_key(key)

    assert shown == {
        "id": "ak_1",
        "name": "ci",
        "project_id": PROJECT,
        "participant": None,
        "models": [],
        "expires_at": None,
        "labels": {},
        "created_at": "2026-11-23T12:00:00.000Z",
        "revoked_at": None,
        "previous_secret_valid_until": "2026-11-23T12:00:00.000Z",
    }
    assert show_keys([key]) == {"access_keys": [shown]}
    assert show_secret(key, Secret("tp_new")) == {**shown, "secret": "tp_new"}
    assert DIGEST not in repr(key)
