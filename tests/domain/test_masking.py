from __future__ import annotations

import pytest

from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.masking import mask, mask_credentials


@pytest.mark.parametrize(
    ("secret", "shown"),
    [("", "****"), ("sk-short1", "****"), ("sk-a-key-7", "****ey-7"), ("sk-proj-0123456789abcdef", "****cdef")],
)
def test_last_four_characters_of_a_long_secret_are_shown(secret: str, shown: str) -> None:
    assert mask(Secret(secret)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl' has no price", "model '****' has no price"),
        ("tier 'eyJhbGciOiJIUzI1NiIsIn' is unknown", "tier '****' is unknown"),
        ("annotation eyjhbgcioijiuzi1niisinr5cci is too long", "annotation **** is too long"),
        ("model 'tp_8s7Yh3kPq0vLw2Zx-19' has no price", "model '****' has no price"),
        ("'sk-ant-api03-0123456789abcdef', 'ma-AAAAAAAAAAAAAAAAAAAAAA-b'", "'****', '****'"),
        ("model 'gemma-2-27b-instruct-long' and task-sk-0123456789abcdefgh", None),
        ("use ma-<kid>-<project>-<secret>, tp_... or eyJ...", None),
    ],
)
def test_what_has_the_form_of_a_credential_is_masked_and_nothing_else(text: str, shown: str | None) -> None:
    assert mask_credentials(text) == (shown or text)
