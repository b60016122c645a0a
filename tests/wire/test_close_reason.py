from __future__ import annotations

import pytest

from tornado_proxy.wire.close_reason import cut_close_reason


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        pytest.param("going away", "going away", id="short"),
        pytest.param("x" * 200, "x" * 120, id="long"),
        pytest.param("\u6771" * 60, "\u6771" * 40, id="three bytes a character"),
        pytest.param("x" * 119 + "\u00e9", "x" * 119, id="no half character"),
        pytest.param("a\ud800b", "a?b", id="half of a surrogate pair"),
    ],
)
def test_reason_fits_a_close_frame(text: str, cut: str) -> None:
    assert cut_close_reason(text) == cut
    assert len(cut.encode()) <= 123
