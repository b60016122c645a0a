from __future__ import annotations

import pytest

from tornado_proxy.providers.shared.token_estimate import METHOD, estimate_tokens


@pytest.mark.parametrize(("text_bytes", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100), (401, 101)])
def test_four_bytes_are_one_token_rounded_up(text_bytes, tokens):
    assert estimate_tokens(text_bytes) == tokens


def test_estimate_method_is_named_in_records():
    assert METHOD == "utf8_bytes_div_4"
