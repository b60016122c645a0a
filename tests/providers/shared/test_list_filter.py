from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.providers.shared.list_filter import keep_entries

OPENAI = b'{\n  "object": "list",\n  "data": [\n    {\n      "id": "a"\n    },\n    {\n      "id": "b"\n    }\n  ]\n}'
ANTHROPIC = (
    b'{"data":[{"type":"model","id":"x"},{"type":"model","id":"y"}],"has_more":true,"first_id":"x","last_id":"y"}'
)


def test_list_without_unwanted_entries_is_the_same_object():
    assert keep_entries(OPENAI, lambda _: True) is OPENAI


@pytest.mark.parametrize(
    ("body", "kept", "expected"),
    [
        pytest.param(
            OPENAI, "a", OPENAI.replace(b',\n    {\n      "id": "b"\n    }', b""), id="openai, the last is removed"
        ),
        pytest.param(
            OPENAI, "b", OPENAI.replace(b'\n    {\n      "id": "a"\n    },', b""), id="openai, the first is removed"
        ),
        pytest.param(OPENAI, "", b'{\n  "object": "list",\n  "data": [\n  ]\n}', id="all are removed"),
        pytest.param(
            ANTHROPIC, "y", ANTHROPIC.replace(b'{"type":"model","id":"x"},', b""), id="anthropic keeps cursors"
        ),
    ],
)
def test_unwanted_entries_are_removed_and_no_other_byte_changes(body, kept, expected):
    assert keep_entries(body, lambda name: name == kept) == expected


@given(names=st.lists(st.text(max_size=4), max_size=8), indent=st.sampled_from([None, 1]), data=st.data())
def test_wanted_entries_stay_in_their_order(names, indent, data):
    wanted = set(data.draw(st.lists(st.sampled_from(names)))) if names else set()
    body = json.dumps(
        {"before": [], "data": [{"id": name, "n": [1, {"id": "no"}]} for name in names], "z": 1}, indent=indent
    )

    filtered = json.loads(keep_entries(body.encode(), wanted.__contains__))

    assert [entry["id"] for entry in filtered["data"]] == [name for name in names if name in wanted]
    assert filtered["z"] == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"error":{}}', id="no list"),
        pytest.param(b'{"data":null}', id="null"),
        pytest.param(b'{"data":5}', id="a number"),
        pytest.param(b'{"data":{"id":"a"}}', id="an object"),
        pytest.param(b'{"data":["a"]}', id="entries without id"),
        pytest.param(b'{"d\\u0061ta":[{"id":"a"}]}', id="a name with escapes"),
        pytest.param(b'{"data":[{"id":"a"}],"data":[]}', id="two lists"),
        pytest.param(b'{"data":[{"id":"a"},', id="a part"),
    ],
)
def test_body_that_cannot_be_cut_is_an_error_of_the_provider(body):
    with pytest.raises(UpstreamError, match="can be cut"):
        keep_entries(body, lambda _: False)


@given(st.binary(max_size=100))
def test_no_bytes_pass_uncut(body):
    with pytest.raises(UpstreamError):
        keep_entries(body, lambda _: False)


def test_list_in_another_member_is_unchanged():
    body = b'{"old":[{"id":"a"},{"id":"b"}],"data":[{"id":"a"},{"id":"b"}]}'

    assert json.loads(keep_entries(body, lambda name: name == "b")) == {
        "old": [{"id": "a"}, {"id": "b"}],
        "data": [{"id": "b"}],
    }
