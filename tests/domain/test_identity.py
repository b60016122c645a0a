from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest

from tornado_proxy.domain.identity import ApiKey, Project, ProjectProvider, ProviderKey, Secret

TEXT = "the-secret-itself-1234"
SECRET = Secret(TEXT)
HOLDERS = (
    SECRET,
    ApiKey("kid", "project", SECRET),
    Project("id", "name", providers={"openai": ProjectProvider((ProviderKey("main", SECRET),))}),
    [SECRET],
)


@pytest.mark.parametrize("holder", HOLDERS, ids=["alone", "in a key", "in a project", "in a list"])
def test_secret_is_not_shown_by_its_container(holder: object) -> None:
    record = logging.makeLogRecord({"msg": "%s %r", "args": (holder, holder)})

    for shown in (repr(holder), str(holder), f"{holder}", f"{holder!r}", f"{holder!s}", record.getMessage()):
        assert TEXT not in shown
        assert "***" in shown


def test_secret_is_not_shown_by_any_format() -> None:
    assert f"{SECRET:>40}" == "***"
    assert "%-30s" % SECRET == "***" + " " * 27  # noqa: UP031  percent formatting could show it too


def test_secret_is_not_shown_by_traceback() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        assert TEXT not in traceback.format_exc()


@pytest.mark.parametrize(
    "write", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps], ids=["pickle", "copy", "deepcopy", "json"]
)
def test_secret_cannot_be_serialized_or_copied(write: object) -> None:
    with pytest.raises(TypeError):
        write(SECRET)  # type: ignore[operator]


def test_secret_has_no_instance_dict() -> None:
    assert not hasattr(SECRET, "__dict__")


def test_secrets_with_equal_text_are_equal() -> None:
    assert Secret(TEXT) == SECRET
    assert hash(Secret(TEXT)) == hash(SECRET)
    assert Secret("another") != SECRET
    assert SECRET != TEXT
    assert Secret("é") != SECRET


def test_empty_secret_is_false_and_reveal_returns_the_text() -> None:
    assert not Secret("")
    assert SECRET
    assert SECRET.reveal() == TEXT
