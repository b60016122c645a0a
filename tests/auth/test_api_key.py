from __future__ import annotations

import pickle
import uuid
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.tokens import PROJECT_ID
from tornado_proxy.auth.api_key import format_api_key, generate, parse_api_key
from tornado_proxy.domain.identity import ApiKey, Secret

SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


def test_text_form_is_prefix_ids_and_secret() -> None:
    key = ApiKey("fbefbefb-efbe-fbef-befb-efbefbefbefb", "ffffffff-ffff-ffff-ffff-ffffffffffff", Secret("a-b-c"))

    # These ids encode to the two characters that URL-safe base64 adds; `-` becomes `.`.
    assert format_api_key(key).reveal() == "ma-.....................w-_____________________w-a-b-c"


@given(kid=st.uuids(), project=st.uuids(), secret=SECRETS)
def test_formatted_key_is_parsed_back(kid: uuid.UUID, project: uuid.UUID, secret: str) -> None:
    key = ApiKey(str(kid), str(project), Secret(secret))

    assert parse_api_key(format_api_key(key).reveal()) == key


def test_white_space_around_a_key_is_ignored() -> None:
    key = generate(PROJECT_ID)

    assert parse_api_key(f" {format_api_key(key).reveal()}\r\n") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ma-",
        "sk-proj-secret-of-another-owner",
        "ma-short-short-secret-of-another-owner",
        "ma-" + "A" * 22 + "-" + "A" * 22 + "-",
        "ma-" + "A" * 22 + "-" + "A" * 22,
        "ma-" + "A" * 23 + "-" + "A" * 22 + "-secret-of-another-owner",
        "ma-" + "+" * 22 + "-" + "A" * 22 + "-secret-of-another-owner",
        "ma-" + "A" * 22 + "-" + "A" * 22 + "-secret of another-owner",
        "ma-" + "\u00e9" * 22 + "-" + "A" * 22 + "-secret-of-another-owner",
        "MA-" + "A" * 22 + "-" + "A" * 22 + "-secret-of-another-owner",
    ],
)
def test_other_text_is_rejected_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="ma-<kid>-<project>-<secret>") as rejected:
        parse_api_key(text)

    assert "another-owner" not in str(rejected.value)
    assert rejected.value.__cause__ is None


def test_two_new_keys_share_only_their_project() -> None:
    first, second = generate(PROJECT_ID), generate(PROJECT_ID)

    assert first.project_id == second.project_id == PROJECT_ID
    assert first.id != second.id
    assert first.secret != second.secret
    assert len(first.secret.reveal()) == 43  # 32 bytes in base64


def test_project_id_must_be_a_uuid() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        generate("acme")


def test_formatted_key_is_not_shown() -> None:
    written = format_api_key(generate(PROJECT_ID))

    assert f"{written} {written!r}" == "*** Secret('***')"
    with pytest.raises(TypeError):
        pickle.dumps(written)


@given(kid=st.uuids(), project=st.uuids(), secret=SECRETS)
def test_public_package_formats_and_parses_the_same_keys(
    meshagent: ModuleType, kid: uuid.UUID, project: uuid.UUID, secret: str
) -> None:
    ours = ApiKey(str(kid), str(project), Secret(secret))
    theirs = meshagent.keys.ApiKey(id=str(kid), project_id=str(project), secret=secret)
    written = format_api_key(ours).reveal()

    assert meshagent.keys.encode_api_key(theirs) == written
    assert vars(meshagent.keys.parse_api_key(written)) == vars(theirs)
    assert parse_api_key(meshagent.keys.encode_api_key(theirs)) == ours
