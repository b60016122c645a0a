"""Messages of error responses, by request id, in bounded memory."""

from __future__ import annotations

import pytest

from tornado_proxy.local.error_texts import ErrorTexts


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([b'{"error":{"message":"slow ', b'down","code":"x"}}'], "slow down"),
        ([b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'], "Overloaded"),
        ([b"<html>Bad gateway</html>\n"], "<html>Bad gateway</html>"),
        ([b'{"error":"no object"}'], '{"error":"no object"}'),
        ([b'{"error":{"message":"\xff"}}'], '{"error":{"message":"\ufffd"}}'),
        ([], ""),
    ],
)
def test_message_is_that_of_the_error_or_the_whole_text(chunks: list[bytes], message: str) -> None:
    texts = ErrorTexts()
    for chunk in chunks:
        texts.add("req_1", chunk)

    assert texts.take("req_1") == message
    assert texts.take("req_1") == ""


def test_memory_is_bounded() -> None:
    texts = ErrorTexts()
    for number in range(300):
        for _ in range(3):
            texts.add(f"req_{number}", b"x" * 5000)

    assert texts.take("req_99") == ""
    assert len(texts.take("req_100")) == 8192
    assert len(texts.take("req_299")) == 8192
