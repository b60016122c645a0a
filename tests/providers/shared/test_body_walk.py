"""Laws of the walk over request bodies: nothing hides from it, and it takes linear time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts, Spend
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.request_members import RULES
from tornado_proxy.providers.shared.body_walk import (
    MAX_BYTES_DECODED_WHOLE,
    MAX_DEPTH,
    Findings,
    add_findings,
    walk_body,
    walk_content,
)
from tornado_proxy.providers.shared.json_body import MIN_SPLIT_BYTES, is_text_only, may_need_walk

NAMES = sorted(RULES.references)
FACTS = RequestFacts(spends=(Spend("gpt-5.4", frozenset({Meter.INPUT})),))


def find(body: bytes) -> Findings:
    return walk_body(body, RULES) if may_need_walk(body, RULES) else Findings()


def escaped(name: str) -> str:
    """Return `name` as a JSON string in which every character is escaped."""
    return '"' + "".join(f"\\u{ord(character):04x}" for character in name) + '"'


@pytest.mark.parametrize("name", NAMES)
def test_reference_is_found_at_any_depth_in_any_spelling(name: str) -> None:
    nested = json.dumps({"a": [{"b": {name: "obj_1"}}]}).encode()
    hidden = f'{{"a":[{{{escaped(name)} :"obj_1"}}]}}'.encode()

    assert find(nested).references == ["obj_1"]
    assert find(hidden).references == ["obj_1"]


def test_only_one_escaped_character_hides_no_name() -> None:
    assert find(rb'{"f\u0069le_id":"file_1"}').references == ["file_1"]


def test_text_with_escapes_needs_no_walk() -> None:
    body = json.dumps({"model": "m", "input": 'caf\u00e9 "file_id" \\u0041'}).encode()

    assert not may_need_walk(body, RULES)


def test_model_beside_the_checked_ones_is_rejected() -> None:
    body = json.dumps({"model": "gpt-5.4", "tools": [{"svg": {"model": "gpt-6-astra"}}]}).encode()

    with pytest.raises(InvalidBody, match="gpt-6-astra"):
        add_findings(FACTS, find(body))


@pytest.mark.parametrize("value", [["gpt-6-astra"], {"name": "gpt-6-astra"}, 5])
def test_model_of_another_type_is_rejected(value: Any) -> None:
    with pytest.raises(InvalidBody, match='"model" must be text'):
        find(json.dumps({"model": "gpt-5.4", "transcription": {"model": value}}).encode())


@pytest.mark.parametrize("name", ["file_id", "model", "anything"])
def test_repeated_member_at_any_depth_is_rejected(name: str) -> None:
    body = f'{{"model":"gpt-5.4","input":[{{"file_id":"x","a":{{"{name}":"a","{name}":"b"}}}}]}}'.encode()

    with pytest.raises(InvalidBody, match="twice"):
        find(body)


def test_deep_nesting_is_rejected() -> None:
    body = b'{"file_id":"f","a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}"

    with pytest.raises(InvalidBody, match="nested"):
        find(body)


@given(
    path=st.lists(st.sampled_from(["input", "tools", "content", "items", "file"]), max_size=6),
    name=st.sampled_from(NAMES),
    in_list=st.booleans(),
)
def test_reference_is_found_under_any_members_that_are_not_opaque(path: list[str], name: str, in_list: bool) -> None:
    value: Any = {name: ["obj_1"] if in_list else "obj_1"}
    for member in path:
        value = {member: [value]}

    assert find(json.dumps(value).encode()).references == ["obj_1"]


#: Content of a list at the top level of a body: references in every form, in opaque members and at any depth.
ENTRIES = [
    {"file_id": "file_1"},
    {"type": "item_reference", "id": "item_1"},
    {"content": [{"file_ids": ["file_2", {"id": "file_3"}]}]},
    {"metadata": {"file_id": "own"}},
    [[{"model": "m-1"}]],
    "text",
    7,
    None,
]


@pytest.mark.parametrize("name", ["input", "metadata", "tools"])
def test_large_list_is_walked_in_parts_with_the_same_findings(name: str) -> None:
    small = {"model": "m-2", name: ENTRIES, "prompt": {"id": "pmpt_1"}}
    large = {**small, name: [*ENTRIES, *("x" * 1000 for _ in range(2000)), *ENTRIES]}
    body = json.dumps(large).encode()
    assert len(body) > MAX_BYTES_DECODED_WHOLE

    found = walk_body(body, RULES)

    whole = walk_content(large, RULES)
    assert "pmpt_1" in whole.references
    assert (set(found.references), set(found.models)) == (set(whole.references), set(whole.models))


def test_large_list_of_ids_is_read_entry_by_entry() -> None:
    ids = [f"file_{number:0100}" for number in range(20_000)]

    found = walk_body(json.dumps({"file_ids": [*ids, {"id": "file_x"}]}).encode(), RULES)

    assert set(found.references) == {*ids, "file_x"}
    with pytest.raises(InvalidBody, match='"file_ids" must be an id'):
        walk_body(json.dumps({"file_ids": [*ids, 7]}).encode(), RULES)


@pytest.mark.parametrize("name", ["input", "metadata", "file_ids", "model"])
@pytest.mark.parametrize("entry", ['{"a":1,"a":2}', '[{"b":[{"a":1,"a":2}]}]'])
def test_repeated_member_in_a_large_list_is_rejected(name: str, entry: str) -> None:
    text = "x" * MAX_BYTES_DECODED_WHOLE

    with pytest.raises(InvalidBody, match=r'"a" twice|must be text'):
        walk_body(f'{{"{name}":["{text}",{entry}]}}'.encode(), RULES)


def test_nesting_of_a_large_list_counts_from_the_body() -> None:
    text = json.dumps("x" * MAX_BYTES_DECODED_WHOLE)
    allowed, deep = ("[" * depth + "1" + "]" * depth for depth in (MAX_DEPTH - 1, MAX_DEPTH + 1))

    walk_body(f'{{"input":[{text},{allowed}]}}'.encode(), RULES)
    with pytest.raises(InvalidBody, match="nested"):
        walk_body(f'{{"input":[{text},{deep}]}}'.encode(), RULES)


#: A type and a member whose tokens are not in the body.
OPAQUE = (b"image", b"file_id")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        json.dumps({"text": 'an "image"'}).encode(),
        json.dumps({"text": "images"}).encode(),
        json.dumps({"text": "Gr\u00fc\u00dfe \u4f60\u597d"}).encode(),
        json.dumps({"text": "a\u0000\u001b"}).encode(),
    ],
)
def test_text_is_text(body: bytes) -> None:
    assert is_text_only(body, OPAQUE)


@pytest.mark.parametrize(
    "body", [b'{"type":"image"}', b'{"file_id":"file_1"}', rb'{"type":"\u0069mage"}', rb'{"f\u0069le_id":"x"}']
)
def test_media_and_names_with_escapes_are_not(body: bytes) -> None:
    assert not is_text_only(body, OPAQUE)


#: A parameter of a client's tool whose name is that of media.
SCHEMA = {"properties": {"image": {"description": 'an \\ "image" \u00e9'}}, "required": ["image"], "max": 2**70}


@pytest.mark.parametrize("separators", [None, (",", ":"), (" , ", " : ")])
def test_parameter_of_a_tool_is_text(separators: tuple[str, str] | None) -> None:
    body = json.dumps({"tools": [SCHEMA], "text": "an image"}, separators=separators, ensure_ascii=False).encode()

    assert is_text_only(body, OPAQUE, lambda: [SCHEMA])
    assert not is_text_only(body, OPAQUE)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps({"tools": [SCHEMA], "type": "image"}).encode(), id="beside the schema"),
        pytest.param(json.dumps({"tools": [SCHEMA], "file_id": "file_1"}).encode(), id="another name"),
        pytest.param(
            json.dumps({"tools": [SCHEMA], "type": "image"}).encode().replace(b'"image":', rb'"im\u0061ge":'),
            id="an escape in the schema in its place",
        ),
    ],
)
def test_media_beside_a_parameter_of_the_same_name_are_not(body: bytes) -> None:
    assert not is_text_only(body, OPAQUE, lambda: [SCHEMA])


def test_schema_that_is_nested_too_deeply_hides_nothing() -> None:
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]

    assert not is_text_only(b'{"type":"image"}', OPAQUE, lambda: [nested])


#: Parts of bodies that are searched in different ways: text without quotation marks, text with many, and neither.
PADDING = {
    "long text": "word " * (MIN_SPLIT_BYTES // 4),
    "many strings": ["ab"] * (MIN_SPLIT_BYTES // 4),
    "long text with quotes": 'say "id" and \\ ' * (MIN_SPLIT_BYTES // 8),
    "nothing": "",
}


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
@pytest.mark.parametrize("name", NAMES)
def test_long_prompt_hides_no_reference(name: str, padding: object) -> None:
    before = json.dumps({"text": padding, "a": [{"b": {name: "obj_1"}}]}).encode()
    after = json.dumps({"a": [{"b": {name: "obj_1"}}], "text": padding}).encode()
    without = json.dumps({"a": [{"b": {}}], "text": padding}).encode()

    assert find(before).references == find(after).references == ["obj_1"]
    assert find(without).references == []


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
def test_long_prompt_hides_no_second_model(padding: object) -> None:
    one = json.dumps({"model": "m", "text": padding}).encode()
    two = json.dumps({"model": "m", "text": padding, "a": {"model": "n"}}).encode()

    assert not may_need_walk(one, RULES)
    assert may_need_walk(two, RULES)


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
def test_long_prompt_hides_no_media(padding: object) -> None:
    assert is_text_only(json.dumps({"text": padding}).encode(), OPAQUE)
    assert not is_text_only(json.dumps({"text": padding, "type": "image"}).encode(), OPAQUE)
    assert not is_text_only(json.dumps({"text": padding}).encode()[:-1] + rb',"type":"\u0069mage"}', OPAQUE)


TOKENS = [b'"', b"model", b"file_id", b"id", b"x", b'"model"', b'"file_id"', b"\\"]


@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=12))
def test_one_pass_finds_as_much_as_a_search_for_each_name(tokens: list[bytes]) -> None:
    body = b"".join(tokens)
    by_name = any(b'"%b"' % name in body for name in RULES.names) or body.count(b'"model"') > 1

    assert may_need_walk(body, RULES) or not by_name
