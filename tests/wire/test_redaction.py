from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.domain.identity import Secret
from tornado_proxy.wire.redaction import Redaction, Redactor

KEY = "sk-provider-key-0123"
MASK = b"*" * len(KEY)


def redact(parts: list[bytes]) -> bytes:
    """Return the masked bytes, which are the same whether the last part comes with the end or before it."""
    redaction = Redaction((Secret(KEY),))
    redactor, other = Redactor(redaction), Redactor(redaction)
    masked = b"".join(redactor.feed(part) for part in parts) + redactor.finish(b"")
    assert b"".join(other.feed(part) for part in parts[:-1]) + other.finish(b"".join(parts[-1:])) == masked
    return masked


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
    redactor = Redactor(Redaction((Secret(KEY),)))

    assert redactor.feed(b'data: {"x":1}\n\n') == b'data: {"x":1}\n\n'
    assert redactor.feed(b"tail sk-pro") == b"tail "
    assert redactor.feed(b"fit\n") == b"sk-profit\n"


def test_key_is_masked_in_header_values() -> None:
    headers = [("X-Echo", f"key={KEY};"), ("X-Other", "plain")]
    expected = [("X-Echo", f"key={MASK.decode()};"), ("X-Other", "plain")]

    assert Redaction((Secret(KEY),)).head(f"No {KEY}", headers) == (f"No {MASK.decode()}", expected)


def test_short_secret_masks_nothing() -> None:
    redaction = Redaction((Secret("short"),))
    redactor = Redactor(redaction)

    assert redactor.feed(b"a short response") == b"a short response"
    assert redactor.finish(b"") == b""
    assert redaction.head("OK", [("X-Echo", "a short header")]) == ("OK", [("X-Echo", "a short header")])


#: Beside KEY: a key that shares its start, one that begins with KEY, and one that is unlike it.
ALL = Redaction(map(Secret, (KEY, "sk-provider-7", f"{KEY}/long", "another-key-0123456789")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(KEY, "*" * 20, id="as it is"),
        pytest.param("sk-provider-7", "*" * 13, id="another key with the same start"),
        pytest.param(f"{KEY}/long", "*" * 25, id="the longer of two"),
        pytest.param("another-key-0123456789", "*" * 22, id="a key that is unlike the others"),
        pytest.param(f"sk-provider-{KEY}", "sk-provider-" + "*" * 20, id="after its own start"),
        pytest.param(r"sk\u002dprovider\u002Dkey-0123", "*" * 30, id="JSON escapes"),
        pytest.param(r"\u0073k-provider-key-0123 tail", "*" * 25 + " tail", id="the first character escaped"),
        pytest.param(r"sk\\u002dprovider-key-0123", "*" * 26, id="JSON inside a JSON string"),
        pytest.param(r"sk-provider-key-0123\/long", "*" * 26, id="escaped slash"),
        pytest.param(r"sk\u002eprovider-key-0123", r"sk\u002eprovider-key-0123", id="another character escaped"),
        pytest.param("sk-provider-8", "sk-provider-8", id="no secret"),
    ],
)
def test_every_secret_is_found_however_it_is_written(text: str, expected: str) -> None:
    data = text.encode()

    assert ALL.text(text) == expected
    assert ALL.frame(text) == expected
    assert ALL.frame(data) == expected.encode()
    for size in (1, 2, 3, 7):
        redactor = Redactor(ALL)
        parts = [redactor.feed(data[start : start + size]) for start in range(0, len(data), size)]
        # A chunk that ends with a complete key is masked at once: the longer key of two is then found in two parts.
        assert b"".join(parts) + redactor.finish(b"") in (expected.encode(), b"*" * 20 + data[20:])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("https://x.example/?key=sk%2Dprovider%2dkey-0123", "https://x.example/?key=" + "*" * 24, id="URL"),
        pytest.param("x-sk-PROVIDER-key-0123", "x-" + "*" * 20, id="another case"),
    ],
)
def test_secret_in_a_header_is_found_percent_encoded_and_in_any_case(text: str, expected: str) -> None:
    assert ALL.text(text) == expected
    assert ALL.head("OK", [(text, text)]) == ("OK", [(expected, expected)])


@given(
    st.lists(st.sampled_from(["s", "k", "-", r"\u002d", r"\u0073", "\\", r"\\u002D", KEY, KEY[:9], "x"]), max_size=12),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_splits_do_not_change_the_output_with_escapes(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces).encode()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    assert redact([text[a:b] for a, b in itertools.pairwise(edges)]) == redact([text])


def test_redaction_of_one_more_secret_keeps_the_others() -> None:
    redaction = ALL.with_secret(Secret("ek_provider_short_lived"))

    assert redaction.text(f"ek_provider_short_lived {KEY}") == "*" * 23 + " " + "*" * 20
    assert ALL.with_secret(Secret(KEY)) is ALL
