from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.identity import Secret
from tornado_proxy.wire.redaction import Redactor

KEY = "sk-provider-key-0123"
MASK = b"*" * len(KEY)


def redact(parts: list[bytes]) -> bytes:
    redactor = Redactor(Secret(KEY))
    return b"".join(redactor.feed(part) for part in parts) + redactor.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"nothing here", b"nothing here", id="no key"),
        pytest.param(b"a " + KEY.encode() + b" b", b"a " + MASK + b" b", id="in the middle"),
        pytest.param(KEY.encode() * 2, MASK * 2, id="twice in a row"),
        pytest.param(b"sk-provider-key-01", b"sk-provider-key-01", id="a prefix of the key"),
        pytest.param(b"ssk-ssk-" + KEY.encode(), b"ssk-ssk-" + MASK, id="prefixes before the key"),
    ],
)
def test_key_is_masked_at_its_own_length(text: bytes, expected: bytes) -> None:
    assert redact([text]) == expected
    assert redact([text[i : i + 1] for i in range(len(text))]) == expected


@given(
    st.lists(st.sampled_from([KEY.encode(), KEY.encode()[:7], KEY.encode()[7:], b"s", b"x", b"\xff"]), max_size=12),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_splits_do_not_change_the_output(pieces: list[bytes], cuts: list[int]) -> None:
    text = b"".join(pieces)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]

    assert redact(parts) == text.replace(KEY.encode(), MASK)


def test_bytes_that_cannot_be_the_key_are_returned_at_once() -> None:
    redactor = Redactor(Secret(KEY))

    assert redactor.feed(b'data: {"x":1}\n\n') == b'data: {"x":1}\n\n'
    assert redactor.feed(b"tail sk-pro") == b"tail "
    assert redactor.feed(b"fit\n") == b"sk-profit\n"


def test_key_is_masked_in_header_values() -> None:
    headers = [("X-Echo", f"key={KEY};"), ("X-Other", "plain")]

    assert Redactor(Secret(KEY)).headers(headers) == [("X-Echo", f"key={MASK.decode()};"), ("X-Other", "plain")]


def test_short_secret_masks_nothing() -> None:
    redactor = Redactor(Secret("short"))

    assert redactor.feed(b"a short response") == b"a short response"
    assert redactor.headers([("X-Echo", "a short header")]) == [("X-Echo", "a short header")]
    assert redactor.close() == b""
