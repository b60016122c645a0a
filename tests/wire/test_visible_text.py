from __future__ import annotations

import json

import pytest

from tornado_proxy.wire.visible_text import escape_controls, escape_json_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("gpt-5.4", "gpt-5.4", id="a plain name"),
        pytest.param("Zoë 模型 😀", "Zoë 模型 😀", id="names of any script"),
        pytest.param("\x1b]0;owned\x07", "\\u001b]0;owned\\u0007", id="ESC and BEL"),
        pytest.param("\x9b2J", "\\u009b2J", id="a C1 control"),
        pytest.param("a\u202egnp.exe", "a\\u202egnp.exe", id="a bidirectional override"),
        pytest.param("\u2066a\u2069", "\\u2066a\\u2069", id="bidirectional isolates"),
        pytest.param("a\rb\x7f", "a\\u000db\\u007f", id="a carriage return and DEL"),
        pytest.param("a\nb\tc", "a\nb\tc", id="line feeds and tabs stay"),
        pytest.param("\ud83d", "\\ud83d", id="half of a pair"),
    ],
)
def test_controls_are_escaped_and_letters_stay(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_escaped_json_means_the_same_text() -> None:
    names = ["Zoë", "a\u202eb", "\x9b\x7f\u2028", "\x1b"]
    encoded = json.dumps(names, ensure_ascii=False)

    escaped = escape_json_controls(encoded)

    assert escaped == '["Zoë", "a\\u202eb", "\\u009b\\u007f\\u2028", "\\u001b"]'
    assert json.loads(escaped) == names
