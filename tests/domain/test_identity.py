from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest

from tornado_proxy.domain.identity import ApiKey, Project, Secret

TEXT = "the-secret-itself-1234"
SECRET = Secret(TEXT)
HOLDERS = (SECRET, ApiKey("kid", "project", SECRET), Project("id", "name", provider_keys={"openai": SECRET}), [SECRET])


@pytest.mark.parametrize("holder", HOLDERS, ids=["alone", "in a key", "in a project", "in a list"])
def test_a_secret_is_not_shown_by_what_holds_it(holder: object) -> None:
    record = logging.makeLogRecord({"msg": "%s %r", "args": (holder, holder)})

    for shown in (repr(holder), str(holder), f"{holder}", f"{holder!r}", f"{holder!s}", record.getMessage()):
        assert TEXT not in shown
        assert "***" in shown


def test_no_format_shows_it() -> None:
    assert f"{SECRET:>40}" == "***"
    assert "%-30s" % SECRET == "***" + " " * 27  # noqa: UP031  an old way of formatting is one more way out


def test_a_traceback_does_not_show_it() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        assert TEXT not in traceback.format_exc()


@pytest.mark.parametrize(
    "write", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps], ids=["pickle", "copy", "deepcopy", "json"]
)
def test_it_cannot_be_written_or_copied(write: object) -> None:
    with pytest.raises(TypeError):
        write(SECRET)  # type: ignore[operator]


def test_it_has_no_attributes_to_find_it_by() -> None:
    assert not hasattr(SECRET, "__dict__")


def test_secrets_are_equal_when_their_texts_are() -> None:
    assert Secret(TEXT) == SECRET
    assert hash(Secret(TEXT)) == hash(SECRET)
    assert Secret("another") != SECRET
    assert SECRET != TEXT
    assert Secret("é") != SECRET


def test_an_empty_one_is_false_and_only_reveal_tells() -> None:
    assert not Secret("")
    assert SECRET
    assert SECRET.reveal() == TEXT
