from __future__ import annotations

import pytest

from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.masking import mask


@pytest.mark.parametrize(
    ("secret", "shown"),
    [("", "****"), ("sk-short1", "****"), ("sk-a-key-7", "****ey-7"), ("sk-proj-0123456789abcdef", "****cdef")],
)
def test_last_four_characters_of_a_long_secret_are_shown(secret: str, shown: str) -> None:
    assert mask(Secret(secret)) == shown
