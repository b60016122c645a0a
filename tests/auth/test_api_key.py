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


def test_a_key_is_written_as_prefix_ids_and_secret() -> None:
    key = ApiKey("fbefbefb-efbe-fbef-befb-efbefbefbefb", "ffffffff-ffff-ffff-ffff-ffffffffffff", Secret("a-b-c"))

    # These ids hold nothing but the two letters that URL-safe base64 has of its own; `-` is written `.`.
    assert format_api_key(key).reveal() == "ma-.....................w-_____________________w-a-b-c"


@given(kid=st.uuids(), project=st.uuids(), secret=SECRETS)
def test_what_is_written_is_read_back(kid: uuid.UUID, project: uuid.UUID, secret: str) -> None:
    key = ApiKey(str(kid), str(project), Secret(secret))

    assert parse_api_key(format_api_key(key).reveal()) == key


def test_white_space_around_a_key_is_not_part_of_it() -> None:
    key = generate(PROJECT_ID)

    assert parse_api_key(f" {format_api_key(key).reveal()}\r\n") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ma-",
        "sk-proj-secret-of-somebody",
        "ma-short-short-secret-of-somebody",
        "ma-" + "A" * 22 + "-" + "A" * 22 + "-",
        "ma-" + "A" * 22 + "-" + "A" * 22,
        "ma-" + "A" * 23 + "-" + "A" * 22 + "-secret-of-somebody",
        "ma-" + "+" * 22 + "-" + "A" * 22 + "-secret-of-somebody",
        "ma-" + "A" * 22 + "-" + "A" * 22 + "-secret of somebody",
        "ma-" + "\u00e9" * 22 + "-" + "A" * 22 + "-secret-of-somebody",
        "MA-" + "A" * 22 + "-" + "A" * 22 + "-secret-of-somebody",
    ],
)
def test_anything_else_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="ma-<kid>-<project>-<secret>") as refused:
        parse_api_key(text)

    assert "somebody" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_two_fresh_keys_share_nothing_but_their_project() -> None:
    one, two = generate(PROJECT_ID), generate(PROJECT_ID)

    assert one.project_id == two.project_id == PROJECT_ID
    assert one.id != two.id
    assert one.secret != two.secret
    assert len(one.secret.reveal()) == 43  # 32 bytes in base64


def test_a_key_for_no_project_is_not_made() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        generate("acme")


def test_a_written_key_does_not_show_itself() -> None:
    written = format_api_key(generate(PROJECT_ID))

    assert f"{written} {written!r}" == "*** Secret('***')"
    with pytest.raises(TypeError):
        pickle.dumps(written)


@given(kid=st.uuids(), project=st.uuids(), secret=SECRETS)
def test_the_public_package_writes_and_reads_the_same(
    meshagent: ModuleType, kid: uuid.UUID, project: uuid.UUID, secret: str
) -> None:
    ours = ApiKey(str(kid), str(project), Secret(secret))
    theirs = meshagent.keys.ApiKey(id=str(kid), project_id=str(project), secret=secret)
    written = format_api_key(ours).reveal()

    assert meshagent.keys.encode_api_key(theirs) == written
    assert vars(meshagent.keys.parse_api_key(written)) == vars(theirs)
    assert parse_api_key(meshagent.keys.encode_api_key(theirs)) == ours
