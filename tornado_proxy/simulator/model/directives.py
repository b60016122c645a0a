"""Behaviour on request: `[[sim KEY=VALUE ...]]` in the last text of the user (docs/simulator.md lists the keys).

Directives stand in the prompt because a proxy passes prompts, while it may drop headers that it does not know.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

_OPEN = "[[sim"
_WORD = re.compile(r"\s*([a-z][a-z-]*)(?:=([^\s\]]*))?")
_CLOSE = re.compile(r"\s*\]\]")
_JSON = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the answer makes; `arguments` is JSON text (for a custom tool: its plain input)."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Directives:
    """What the prompt asks of the simulator.  Delays are milliseconds, `*_after` count events (bytes of a JSON body).

    `status_times` is how often the same text is answered with `status` before it succeeds; 0 means always.
    `batch` is how many events go into one write; 0 leaves it to the pace.
    """

    status: int = 0
    status_times: int = 0
    retry_after: str = ""
    tokens: int | None = None
    delay_ms: float = 0
    first_delay_ms: float = 0
    cut_after: int | None = None
    error_after: int | None = None
    size: int = 0
    batch: int = 0
    say: str | None = None
    tools: tuple[ToolCall, ...] = ()
    silent: bool = False
    refuse: bool = False
    no_usage: bool = False
    echo_secret: bool = False
    headers: bool = False


_NONE = Directives()


def read_directives(text: str) -> Directives:
    """All directives of `text` together; what is not known or not readable is passed over."""
    found = _NONE
    start = text.find(_OPEN)
    while start >= 0:
        found, end = _read_one(text, start + len(_OPEN), found)
        start = text.find(_OPEN, end)
    return found


def _read_one(text: str, at: int, found: Directives) -> tuple[Directives, int]:
    while _CLOSE.match(text, at) is None:
        word = _WORD.match(text, at)
        if word is None:
            return found, at
        key, value, at = word.group(1), word.group(2) or "", word.end()
        if key in ("args", "say"):
            value, at = _read_value(text, word)
        try:
            found = _apply(found, key, value)
        except ValueError:
            continue
    return found, at


def _read_value(text: str, word: re.Match[str]) -> tuple[str, int]:
    """A JSON value, which may hold blanks and brackets, as text; a JSON string as its content; else the bare word."""
    if word.start(2) < 0:
        return "", word.end()
    try:
        value, end = _JSON.raw_decode(text, word.start(2))
    except ValueError:
        return word.group(2), word.end()
    return (value if isinstance(value, str) else text[word.start(2) : end]), end


def _apply(found: Directives, key: str, value: str) -> Directives:
    if key in _FLAGS:
        return _with(found, _FLAGS[key], value=True)
    if key in _NUMBERS:
        return _with(found, _NUMBERS[key], value=max(0, int(value.removeprefix("after:"))))
    match key:
        case "retry-after":
            return replace(found, retry_after=value)
        case "say":
            return replace(found, say=value)
        case "tool":
            return replace(found, tools=(*found.tools, ToolCall(value)))
        case "args" if found.tools:
            *others, last = found.tools
            return replace(found, tools=(*others, replace(last, arguments=value)))
    return found


def _with(found: Directives, field: str, *, value: int) -> Directives:
    changes: dict[str, Any] = {field: value}
    return replace(found, **changes)


_FLAGS = {
    "silent": "silent",
    "refuse": "refuse",
    "no-usage": "no_usage",
    "echo-secret": "echo_secret",
    "headers": "headers",
}
_NUMBERS = {
    "status": "status",
    "times": "status_times",
    "tokens": "tokens",
    "delay-ms": "delay_ms",
    "first-delay-ms": "first_delay_ms",
    "cut": "cut_after",
    "error-event": "error_after",
    "bytes": "size",
    "batch": "batch",
}
