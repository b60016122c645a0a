from __future__ import annotations

import pytest

from tornado_proxy.providers.shared.token_estimate import METHOD, estimate_output, estimate_tokens


@pytest.mark.parametrize(("text_bytes", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100), (401, 101)])
def test_four_bytes_are_one_token_rounded_up(text_bytes, tokens):
    assert estimate_tokens(text_bytes) == tokens


@pytest.mark.parametrize(
    ("text_bytes", "limit", "stated", "tokens"),
    [
        pytest.param(400, None, 0, 100, id="no limit"),
        pytest.param(400, 100, 0, 100, id="as much as the limit"),
        pytest.param(52_000_000, 5, 0, 5, id="more text than the limit allows"),
        pytest.param(400, 130, 20, 120, id="beside stated tokens"),
        pytest.param(400, 110, 20, 110, id="with stated tokens above the limit"),
        pytest.param(400, 10, 20, 20, id="never less than stated"),
    ],
)
def test_output_is_estimated_up_to_the_limit_of_the_request(
    text_bytes: int, limit: int | None, stated: int, tokens: int
) -> None:
    assert estimate_output(text_bytes, limit, stated) == tokens


def test_estimate_method_is_named_in_records():
    assert METHOD == "utf8_bytes_div_4"
