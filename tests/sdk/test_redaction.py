"""Secrets in headers, URLs and bodies are masked, wherever a body is cut, and ordinary text is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.sdk.redaction import Redactor, is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "proxy-authorization", "X-Api-Key", "api_key", "apiKey", "APIKEY", "cookie", "Set-Cookie",
        "access_token", "refreshToken", "id_token", "client_secret", "clientSecret", "password", "X-Amz-Signature",
        "meshagent-llm-delegation", "private_key", "sessionKey", "sid",
    ],
)  # fmt: skip
def test_name_of_a_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["model", "total_tokens", "max_output_tokens", "input_tokens_details", "x-request-id", "content-type", "keyboard",
     "monkey", "author", "llm-proxy-request-id", "x-ratelimit-remaining-tokens", "stop_reason"],
)  # fmt: skip
def test_name_of_no_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"api_key": "abc", "a": 1}', '{"api_key": "***", "a": 1}'),
        ('{"token": ["a", {"b": "c"}], "a": 1}', '{"token": "***", "a": 1}'),
        ('{"token": 12345, "a": 1}', '{"token": "***", "a": 1}'),
        (r'{"t": "{\"secret\": \"a\\\"b\", \"c\": 1}"}', r'{"t": "{\"secret\": \"***\", \"c\": 1}"}'),
        ("https://h.test/x?sig=abc&page=2", "https://h.test/x?sig=***&page=2"),
        ("https://user:pass@h.test/x", "https://***@h.test/x"),
        ("grant_type=x&refresh_token=abc", "grant_type=x&refresh_token=***"),
        ("Incorrect API key provided: sk-abcdef12.", "Incorrect API key provided: ***"),
        ("use tp_0123456789 or tpl_0123456789", "use *** or ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln b", "a *** b"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END", "***-----END"),
        ("the task-force asked for risk-free items", "the task-force asked for risk-free items"),
    ],
)
def test_text_without_its_secrets(text: str, shown: str) -> None:
    assert Redactor().redact(text) == shown


def test_credentials_of_the_headers_are_masked_wherever_they_occur() -> None:
    redactor = Redactor()
    redactor.learn([("Authorization", "Bearer my/own-value"), ("Cookie", "a=cookie-value; b=2")])

    assert redactor.redact("got my/own-value and my%2Fown-value and cookie-value") == "got *** and *** and ***"
    assert redactor.longest == len("Bearer%20my%2Fown-value")


#: Letters that no other part of the text has.
SECRET = "QXZQXZQXZQXZ"

VALUES = st.one_of(
    st.just(SECRET), st.lists(st.just(SECRET), min_size=1), st.dictionaries(st.text("ab"), st.just(SECRET))
)


@given(
    before=st.dictionaries(st.text("ab"), st.text()), value=VALUES, levels=st.integers(0, 2), cut=st.integers(0, 400)
)
def test_secret_of_a_body_cut_anywhere_is_masked(before: dict[str, str], value: object, levels: int, cut: int) -> None:
    text = json.dumps({**before, "apiKey": value})
    for _ in range(levels):
        text = json.dumps({"text": text})

    assert "QXZ" not in Redactor().redact(text[:cut])
