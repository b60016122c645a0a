from __future__ import annotations

import gc
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces
from tornado_proxy.providers.shared import json_skimmer
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP, JsonSkimmer, Shape

MESSAGE: dict[str, Shape] = {"content": COUNT, "calls": {"name": COUNT, "n": KEEP}}
SHAPE: dict[str, Shape] = {"id": KEEP, "usage": KEEP, "choices": {"index": KEEP, "message": MESSAGE}, "texts": COUNT}


def skim(data: bytes, cuts: list[int] | None = None) -> tuple[object, int]:
    skimmer = JsonSkimmer(SHAPE)
    for piece in pieces(data, cuts or []):
        skimmer.feed(piece)
    return skimmer.result(), skimmer.text_bytes


BODY = {
    "skipped": {"usage": [1, {"id": '}]\\"'}]},
    "id": "x",
    "choices": [
        {"index": 0, "message": {"content": 'h\u00e9 "'}, "logprobs": [[{"content": "}"}]]},
        {"index": 1, "message": {"content": None, "calls": [{"name": "abc", "n": 3, "id": "no"}]}},
    ],
    "usage": {"a": [1, -2.5, {"b": "c]"}], "none": None},
    "texts": ["ab", "c", {"text": "not this"}],
    "z": True,
}
EXPECTED = {
    "id": "x",
    "choices": [
        {"index": 0, "message": {}},
        {"index": 1, "message": {"calls": [{"n": 3}]}},
    ],
    "usage": {"a": [1, -2.5, {"b": "c]"}], "none": None},
}


@pytest.mark.parametrize("indent", [None, 2])
@given(cuts=st.lists(st.integers(0, 1000), max_size=30))
def test_members_of_the_shape_are_read_and_texts_are_counted(indent: int | None, cuts: list[int]) -> None:
    data = json.dumps(BODY, indent=indent, ensure_ascii=False).encode()

    # Text: "h\u00e9 \"" is 5 bytes, "abc" 3, "ab" and "c" 3.
    assert skim(data, cuts) == (EXPECTED, 11)
    assert skim(data, list(range(len(data)))) == (EXPECTED, 11)


FRAGMENTS = [
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"1", b"-", b"null", b"\\u00"),
    *(b'"id"', b'"usage"', b'"choices"', b'"message"', b'"content"', b'"texts"', b"id"),
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30), st.lists(st.integers(0, 200), max_size=10))
def test_cuts_never_change_the_result_and_valid_json_is_read(fragments: list[bytes], cuts: list[int]) -> None:
    data = b"{" + b"".join(fragments)

    result = skim(data)

    assert skim(data, cuts) == result
    try:
        value = json.loads(data)
    except ValueError:
        return
    assert result[0] is not None
    assert {name: value[name] for name in ("id", "usage") if name in value}.items() <= dict(result[0]).items()  # type: ignore[call-overload]


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"<html>{}", b'{"id":"x"', b'{"id":"x","usage":{"a":'])
def test_anything_but_one_complete_object_is_none(data: bytes) -> None:
    assert skim(data)[0] is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b'\xef\xbb\xbf {"id":"y"}', {"id": "y"}, id="a byte order mark"),
        pytest.param(b'{"id":tru}', {"id": None}, id="an unknown word"),
        pytest.param(b'{"id":}', {"id": None}, id="no value"),
        pytest.param(b'{"\\u0069d":"x"}', {"id": "x"}, id="an escaped name"),
        pytest.param(b'{"id":"x","id":"y"}', {"id": "y"}, id="the last of two counts, as in any JSON parser"),
        pytest.param(b'{"choices":"x","texts":{"text":"y"}}', {"choices": None}, id="other types"),
        pytest.param(b'{"%b":1,"id":"x"}' % (b"n" * 5000), {"id": "x"}, id="a long name"),
        pytest.param(
            b'{"id":"%b","usage":{"a":"%b"}}' % ((b"n" * 50_000,) * 2), {"id": "", "usage": {"a": ""}}, id="long texts"
        ),
        pytest.param(b'{"id":%b}' % (b"9" * 5000), {"id": None}, id="a long number"),
    ],
)
def test_odd_json_is_read_as_far_as_it_makes_sense(data: bytes, expected: object) -> None:
    # In pieces, as a response of this size arrives.
    assert skim(data, list(range(0, len(data), 700)))[0] == expected


def test_kept_members_have_a_limit_and_usage_after_them_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_skimmer, "MAX_NESTED_BYTES", 1000)
    entries = b'{"index":1},' * 5000
    data = b'{"choices":[%b1],"usage":{"a":1},"id":[%b]}' % (entries, entries)
    skimmer = JsonSkimmer(SHAPE)

    for at in range(0, len(data), 300):
        skimmer.feed(data[at : at + 300])

    result = skimmer.result()
    assert result is not None
    assert (result["usage"], result["id"]) == ({"a": 1}, None)


def test_log_probabilities_are_skipped_in_linear_time() -> None:
    entry = {"token": " so", "logprob": -0.25, "bytes": [32, 115, 111]}
    logprobs = [entry | {"top_logprobs": [entry] * 20} for _ in range(6000)]
    data = json.dumps({"choices": [{"index": 0, "logprobs": {"content": logprobs}}], "usage": {"n": 1}}).encode()
    skimmer = JsonSkimmer(SHAPE)

    started = time.process_time()
    for at in range(0, len(data), 65_536):
        skimmer.feed(data[at : at + 65_536])

    assert time.process_time() - started < 3  # 0.3 s for 8 MB
    assert skimmer.result() == {"choices": [{"index": 0}], "usage": {"n": 1}}


def test_steps_can_be_limited() -> None:
    skimmer = JsonSkimmer(SHAPE)

    skimmer.feed(b'{"usage":{"n":1},"x":' + b"[ {" * 30_000 + b"} ]" * 30_000 + b"}", 1000)

    assert skimmer.result() is None


def test_unfinished_body_is_freed_without_the_cycle_collector():
    # A server with thousands of cancelled requests must not wait for the collector.
    def count() -> int:
        return sum(isinstance(value, JsonSkimmer) for value in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = count()
        skimmer = JsonSkimmer({"usage": KEEP})
        skimmer.feed(b'{"usage": {"input_tokens": 1, "det')
        del skimmer
        assert count() == before
    finally:
        gc.enable()
