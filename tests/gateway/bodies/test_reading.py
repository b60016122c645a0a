"""The event loop reads small bodies unless they have many values."""

from __future__ import annotations

import pytest

from tornado_proxy.gateway.bodies.reading import MAX_BYTES_READ_ON_LOOP, MAX_VALUES_READ_ON_LOOP, is_quick


@pytest.mark.parametrize(
    ("body", "quick"),
    [
        pytest.param(b"", True, id="empty"),
        pytest.param(b"x" * MAX_BYTES_READ_ON_LOOP, True, id="64 KiB of text"),
        pytest.param(b"x" * (MAX_BYTES_READ_ON_LOOP + 1), False, id="more"),
        pytest.param(b"{}," * MAX_VALUES_READ_ON_LOOP, True, id="as many objects as the limit"),
        pytest.param(b"{}," * (MAX_VALUES_READ_ON_LOOP + 1), False, id="one more"),
    ],
)
def test_small_body_is_quick_unless_it_has_many_values(body: bytes, quick: bool) -> None:
    assert is_quick(body) is quick
