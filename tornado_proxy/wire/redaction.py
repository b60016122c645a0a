r"""Masks provider keys in all that a client, a log or the ledger can see, in case a provider echoes one.

A mask has the length of the text that it replaces, so that Content-Length and framing stay correct.  A key is found as
it is, and with characters written as JSON escapes (`\u002d` for `-`, also in JSON inside a JSON string), which a client
would decode.  In headers and records it is found in any case and percent-encoded, too.

    Redaction   the keys of a configuration, prepared once: text(), head(), frame(), values()
    Redactor    one stream of bytes.  Bytes at the end of a chunk that can be the start of a key are held until the
                next chunk; all other bytes pass at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

import msgspec

from tornado_proxy.domain.identity import Secret
from tornado_proxy.wire.literal_search import MAX_SHORT_TEXT, LiteralSearch

#: Shorter secrets occur in ordinary text by chance, and no provider's key is that short.
MIN_SECRET_CHARACTERS = 8

#: Backslashes before one escape: one in JSON, two in JSON inside a JSON string, four one level further down.
_MAX_BACKSLASHES = 4

#: Bytes of the longest spelling of one character: four backslashes, `u` and four hexadecimal digits.
_MAX_ESCAPE_BYTES = _MAX_BACKSLASHES + 5

#: Characters at the start of a key that a pattern finds before the slower walk through the trie; longer than the
#: starts that providers' keys share (`sk-proj-`).
_START_CHARACTERS = 12

#: Escapes in JSON, and in URLs.
_JSON_ESCAPE = rf"\\{{1,{_MAX_BACKSLASHES}}}[u/]"
_URL_ESCAPE = "%[0-9a-f]"

#: Escapes of a character that a key can contain.
_ESCAPE_IN_BYTES = re.compile(rb"\\(?:u00|/)")
_ESCAPE_IN_TEXT = re.compile(r"\\(?:u00|/)")

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")

#: A trie of keys: a character to the node after it; "" marks the end of a key.
_Node = dict[str, "_Node"]

ValueT = TypeVar("ValueT")


class Redaction:
    """The keys that must not leave.  Immutable.

    Args:
        secrets: Keys that are sent to providers.
        base: A redaction whose keys are masked, too.
    """

    def __init__(self, secrets: Iterable[Secret], *, base: Redaction | None = None) -> None:
        texts = {secret.reveal() for secret in secrets if len(secret.reveal()) >= MIN_SECRET_CHARACTERS}
        self._base = base
        self._texts = frozenset(texts)
        # Bytes are searched as Latin-1 text, one character for each byte.
        self._in_bytes = _Search([text.encode().decode("latin-1") for text in texts])
        self._in_text = _Search([text.lower() for text in texts], any_spelling=True)

    def with_secret(self, secret: Secret) -> Redaction:
        """Return a redaction of one more key."""
        return self if secret.reveal() in self._texts else Redaction((secret,), base=self)

    def text(self, text: str) -> str:
        """Return a short text (header, reason phrase, close reason, id, model name) with all keys masked."""
        if len(text) < MIN_SECRET_CHARACTERS:
            return text  # most reason phrases
        if self._base is not None:
            text = self._base.text(text)
        return self._in_text.mask(text) if self._in_text.may_hold(text.lower()) else text

    def head(self, reason: str, headers: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
        """Return the reason phrase and the headers of a response with all keys masked, in names and values."""
        # One search over all of them: they almost never hold a key.
        if not self.may_hold("\n".join((reason, *map("\n".join, headers)))):
            return reason, headers
        return self.text(reason), [(self.text(name), self.text(value)) for name, value in headers]

    def may_hold(self, text: str) -> bool:
        """Return False if text() certainly finds no key in `text`, or in a part of it."""
        return self._in_text.may_hold(text.lower()) or (self._base is not None and self._base.may_hold(text))

    def line(self, text: str) -> str:
        """Return a text of any length, such as a frame or a log line, with all keys masked as in bytes."""
        if self._base is not None:
            text = self._base.line(text)
        return self._in_bytes.mask(text) if self._in_bytes.may_hold(text) else text

    def mask(self, data: bytes) -> bytes:
        """Return complete bytes with all keys masked."""
        if self._base is not None:
            data = self._base.mask(data)
        if not self._in_bytes.may_hold_bytes(data):
            return data
        return self._in_bytes.mask(data.decode("latin-1")).encode("latin-1")

    def frame(self, message: str | bytes) -> str | bytes:
        """Return a complete WebSocket message with all keys masked."""
        return self.mask(message) if isinstance(message, bytes) else self.line(message)

    def values(self, value: ValueT) -> ValueT:
        """Return `value` with all keys masked in its texts: a str, or a tuple, dataclass or Struct of such values."""
        changed: object = value
        if isinstance(value, str):
            changed = self.text(value)
        elif isinstance(value, tuple):
            changed = tuple(self.values(item) for item in value)
        elif isinstance(value, msgspec.Struct):
            members = {name: self.values(getattr(value, name)) for name in value.__struct_fields__}
            changed = msgspec.structs.replace(value, **members)
        elif is_dataclass(value) and not isinstance(value, type):
            changed = replace(value, **{item.name: self.values(getattr(value, item.name)) for item in fields(value)})
        return cast(ValueT, changed)

    def find_partial(self, data: bytes) -> int:
        """Return the index at which a key can begin that the end of `data` cuts off; -1 if there is none."""
        own = self._in_bytes.find_partial(data)
        other = -1 if self._base is None else self._base.find_partial(data)
        return max(own, other) if own < 0 or other < 0 else min(own, other)


class Redactor:
    """Masks the keys of `redaction` in a stream of bytes, however the stream is split into chunks."""

    __slots__ = ("_held", "_redaction")

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return those that can be sent."""
        if self._held:
            data = self._held + data
            self._held = b""
        data = self._redaction.mask(data)
        start = self._redaction.find_partial(data)
        if start < 0:
            return data
        self._held = data[start:]
        return data[:start]

    def finish(self, data: bytes) -> bytes:
        """Take the last bytes of the stream and return them after those that are held."""
        held, self._held = self._held, b""
        return self._redaction.mask(held + data if held else data)


class _Search:
    """Finds keys in text.  `any_spelling`: in any case (`keys` are lower case) and percent-encoded.

    A search has three steps, each slower and rarer than the one before: does the text hold a key or an escape, where
    can a key begin, and is the rest of the key there, too (a walk through the trie in Python).
    """

    def __init__(self, keys: list[str], *, any_spelling: bool = False) -> None:
        self._any_spelling = any_spelling
        self._trie = _build_trie(keys)
        self._literals = LiteralSearch(keys)
        self._literal_bytes = LiteralSearch([] if any_spelling else [key.encode("latin-1") for key in keys])
        escape = f"(?:{_JSON_ESCAPE}|{_URL_ESCAPE})" if any_spelling else _JSON_ESCAPE
        self._start = _compile_starts(sorted({key[:_START_CHARACTERS] for key in keys}), escape)
        self._first = re.compile("[" + "".join(re.escape(key[:1]) for key in sorted(keys)) + r"\\]")
        self._last_bytes = frozenset("".join(keys).encode("latin-1", "ignore") + b"0123456789abcdefABCDEFu\\/")
        self._max_characters = max(map(len, keys), default=0)

    def may_hold(self, text: str) -> bool:
        """Return False if `text` certainly holds no key."""
        if not self._trie:
            return False
        if "\\" in text and _ESCAPE_IN_TEXT.search(text) is not None:
            return True  # a character of a key can be written as an escape
        if self._any_spelling and "%" in text:
            return True
        if len(text) > MAX_SHORT_TEXT:
            return self._literals.may_be_in(text)
        # Not any(): it costs as much as the rest, and each header, line and message comes here.
        for literal in self._literals.literals:  # noqa: SIM110
            if text.find(literal) >= 0:
                return True
        return False

    def may_hold_bytes(self, data: bytes) -> bool:
        """Return False if `data` certainly holds no key."""
        if not self._trie:
            return False
        if data.find(b"\\") >= 0 and _ESCAPE_IN_BYTES.search(data) is not None:
            return True
        if len(data) > MAX_SHORT_TEXT:
            return self._literal_bytes.may_be_in(data)
        for literal in self._literal_bytes.literals:  # noqa: SIM110  # as in may_hold()
            if data.find(literal) >= 0:
                return True
        return False

    def mask(self, text: str) -> str:
        """Return `text` with all complete keys masked."""
        parts: list[str] = []
        masked_to = 0
        for found in self._start.finditer(text):
            start = found.start()
            end = self._find_end(text, start) if start >= masked_to else 0
            if end:
                parts += (text[masked_to:start], "*" * (end - start))
                masked_to = end
        return "".join(parts) + text[masked_to:] if parts else text

    def find_partial(self, data: bytes) -> int:
        """Return the index at which a key can begin that the end of `data` cuts off; -1 if there is none."""
        # Most chunks end with a line end or a brace, which no key contains.
        if not self._max_characters or not data or data[-1] not in self._last_bytes:
            return -1
        window = self._max_characters + _MAX_ESCAPE_BYTES
        if b"\\" in data[-window:]:
            window = self._max_characters * _MAX_ESCAPE_BYTES
        tail = data[-window:].decode("latin-1")
        for found in self._first.finditer(tail):
            if self._is_cut_off(tail, found.start()):
                return len(data) - len(tail) + found.start()
        return -1

    def _find_end(self, text: str, start: int) -> int:
        """Return the index after the longest key that begins at `start`, 0 if none does."""
        node, at, end = self._trie, start, 0
        while at < len(text):
            character, at = _decode_character(text, at, percent=self._any_spelling)
            if character is None:
                break
            child = node.get(character.lower() if self._any_spelling else character)
            if child is None:
                break
            node = child
            end = at if "" in node else end
        return end

    def _is_cut_off(self, text: str, at: int) -> bool:
        """Return True if `text` ends inside a key that begins at index `at`."""
        node = self._trie
        while at < len(text):
            character, at = _decode_character(text, at)
            if character is None:
                return True
            child = node.get(character)
            if child is None:
                return False
            node = child
        return len(node) > ("" in node)


def _build_trie(keys: Iterable[str]) -> _Node:
    root: _Node = {}
    for key in keys:
        node = root
        for character in key:
            node = node.setdefault(character, {})
        node[""] = {}
    return root


def _compile_starts(starts: list[str], escape: str) -> re.Pattern[str]:
    """Return the pattern of the positions where a key can begin: its first characters, or fewer of them and an escape.

    It is a lookahead, because the starts of two keys can overlap.
    """
    prefixes = sorted({start[:length] for start in starts for length in range(len(start))})
    options = [re.escape(start) for start in starts] + [re.escape(prefix) + escape for prefix in prefixes]
    return re.compile(f"(?={'|'.join(options)})" if starts else r"(?!)", re.IGNORECASE)


def _decode_character(text: str, at: int, *, percent: bool = False) -> tuple[str | None, int]:
    """Return the character at index `at`, decoded if it is an escape of JSON (or of a URL), and the index after it.

    The character is None if the end of `text` cuts off an escape.
    """
    if percent and text[at] == "%" and _are_hex_digits(text[at + 1 : at + 3], 2):
        return chr(int(text[at + 1 : at + 3], 16)), at + 3
    if text[at] != "\\":
        return text[at], at + 1
    end = at
    while end < len(text) and end < at + _MAX_BACKSLASHES and text[end] == "\\":
        end += 1
    if end == len(text):
        return None, end
    if text[end] == "/":
        return "/", end + 1
    digits = text[end + 1 : end + 5]
    if text[end] != "u" or not _are_hex_digits(digits, len(digits)):
        return "\\", at + 1
    return (chr(int(digits, 16)) if len(digits) == 4 else None), end + 5


def _are_hex_digits(text: str, length: int) -> bool:
    return len(text) == length and _HEX_DIGITS.issuperset(text)
