"""A splice makes one body of another without a copy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.wire.splice import Splice, find_splice

_bytes = st.text(alphabet="ab", max_size=12).map(str.encode)


@pytest.mark.parametrize(
    ("before", "after", "splice"),
    [
        pytest.param(b"{1}", b"{2,1}", Splice(1, 1, b"2,"), id="insert"),
        pytest.param(b"{1,2}", b"{2}", Splice(1, 3, b""), id="remove"),
        pytest.param(b"{null}", b"{true}", Splice(1, 5, b"true"), id="replace"),
        pytest.param(b"aa", b"aaa", Splice(2, 2, b"a"), id="repeat"),
        pytest.param(b"a", b"a", Splice(1, 1, b""), id="none"),
    ],
)
def test_splice_is_the_shortest(before: bytes, after: bytes, splice: Splice) -> None:
    assert find_splice(before, after) == splice


@given(before=_bytes, after=_bytes)
def test_splice_makes_the_other_body(before: bytes, after: bytes) -> None:
    assert b"".join(find_splice(before, after).split(before)) == after
