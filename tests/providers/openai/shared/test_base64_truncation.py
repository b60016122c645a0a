from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces
from tornado_proxy.providers.openai.shared.base64_truncation import MAX_STRING_BYTES, Base64Truncator


def truncate(*chunks: bytes) -> bytes:
    truncator = Base64Truncator()
    return b"".join(map(truncator.feed, chunks))


def test_base64_of_images_is_truncated_and_the_other_members_stay() -> None:
    images = [{"b64_json": "A" * 1_000_000}, {"b64_json": "B" * 1_000_000}]
    body = json.dumps({"data": images, "size": "1x1"}).encode()

    truncated = truncate(*pieces(body, range(0, len(body), 16_384)))

    assert len(truncated) < 3 * MAX_STRING_BYTES
    assert json.loads(truncated)["size"] == "1x1"
    assert len(json.loads(truncated)["data"]) == 2


def test_a_long_text_is_not_truncated() -> None:
    text = "so it goes on " * 2000 + 'and "ends"'
    body = json.dumps({"text": text}).encode()

    for size in (1000, 16_384, len(body)):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert json.loads(truncate(*chunks))["text"] == text


@given(
    texts=st.lists(st.text(max_size=60).map(lambda text: text * 120), max_size=3),
    cuts=st.lists(st.integers(0, 100_000), max_size=20),
    ascii_only=st.booleans(),
)
def test_truncated_json_is_json_of_the_same_shape(texts: list[str], cuts: list[int], *, ascii_only: bool) -> None:
    body = json.dumps({"texts": texts, "end": 1}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    truncated = json.loads(truncate(*pieces(body, cuts)).decode("utf-8", "surrogatepass"))

    assert truncated["end"] == 1
    assert len(truncated["texts"]) == len(texts)
