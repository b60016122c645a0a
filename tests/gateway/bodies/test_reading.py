"""The event loop reads small bodies unless they have many values."""

from __future__ import annotations

import json

import pytest

from tests.gateway.bodies.test_parsing import make_context
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.gateway.bodies.reading import MAX_BYTES_READ_ON_LOOP, MAX_VALUES_READ_ON_LOOP, is_quick, read_small

CHAT = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}).encode()


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


def test_small_body_is_read_at_once() -> None:
    parsed = read_small(make_context(), CHAT)

    assert parsed is not None
    assert (parsed.facts.model, parsed.body) == ("gpt-4o-mini", CHAT)


@pytest.mark.parametrize(
    ("target", "body", "headers"),
    [
        pytest.param("/openai/v1/chat/completions", CHAT.ljust(8 * 1024), {}, id="8 KiB"),
        pytest.param("/openai/v1/chat/completions", CHAT, {"Content-Encoding": "gzip"}, id="compressed"),
        pytest.param("/openai/v1/audio/transcriptions", b"", {}, id="a recording, which is measured"),
    ],
)
def test_other_body_is_left_to_the_parser(target: str, body: bytes, headers: dict[str, str]) -> None:
    assert read_small(make_context(target, **headers), body) is None


def test_small_body_with_two_content_types_is_refused() -> None:
    context = make_context(**{"content-type": "text/plain"})

    with pytest.raises(BadRequest, match="Content-Type is repeated"):
        read_small(context, CHAT)
