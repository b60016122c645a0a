"""Directives: `[[sim KEY=VALUE ...]]` in the last text of the user changes the response (docs/simulator.md).

Directives are part of the prompt because a proxy relays prompts unchanged, while it may drop unknown headers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

_OPEN = "[[sim"
_KEY_VALUE = re.compile(r"\s*([a-z][a-z-]*)(?:=([^\s\]]*))?")
_CLOSE = re.compile(r"\s*\]\]")
_JSON = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the output; `arguments` is JSON text, or the plain input of a custom tool."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives of a prompt, all together.

    Attributes:
        status: the status of the error response; 0 for none.
        status_times: the number of requests with the same text that fail with `status`; 0 for all.
        tokens: the length of the output; None for the default.
        cut_after, error_after: a number of events, or of bytes of a JSON body.
        size: bytes of the output; 0 for a length in tokens.
        batch: events in one write; 0 for a default that depends on `delay_ms`.
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
    """Return all directives of `text`; unknown keys and invalid values are ignored."""
    found = _NONE
    start = text.find(_OPEN)
    while start >= 0:
        found, end = _read_directive(text, start + len(_OPEN), found)
        start = text.find(_OPEN, end)
    return found


def _read_directive(text: str, at: int, found: Directives) -> tuple[Directives, int]:
    while _CLOSE.match(text, at) is None:
        match = _KEY_VALUE.match(text, at)
        if match is None:
            return found, at
        key, value, at = match.group(1), match.group(2) or "", match.end()
        if key in ("args", "say"):
            value, at = _read_value(text, match)
        # An invalid value is skipped: prompts of real users must never make the simulator fail.
        try:
            found = _apply(found, key, value)
        except ValueError:
            continue
    return found, at


def _read_value(text: str, match: re.Match[str]) -> tuple[str, int]:
    """Return the value and its end: a JSON value as text, a JSON string as its content, else the bare word.

    A JSON value may hold blanks and brackets, so the end of a bare word is not its end.
    """
    if match.start(2) < 0:
        return "", match.end()
    try:
        value, end = _JSON.raw_decode(text, match.start(2))
    except ValueError:
        return match.group(2), match.end()
    return (value if isinstance(value, str) else text[match.start(2) : end]), end


def _apply(found: Directives, key: str, value: str) -> Directives:
    # Tables for the simple keys; the keys below need the value as text.
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
        # `args` belongs to the `tool` before it.
        case "args" if found.tools:
            *others, last = found.tools
            return replace(found, tools=(*others, replace(last, arguments=value)))
    return found


def _with(found: Directives, field: str, *, value: int) -> Directives:
    changes: dict[str, Any] = {field: value}
    return replace(found, **changes)


#: Keys without a value, and the fields that they set.
_FLAGS = {
    "silent": "silent",
    "refuse": "refuse",
    "no-usage": "no_usage",
    "echo-secret": "echo_secret",
    "headers": "headers",
}
#: Keys with a number, which may follow `after:`, and the fields that they set.
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
