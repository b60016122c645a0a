"""Replaces secrets in headers, URLs and bodies by `***` before they are logged.

Three rules find them: the credentials and cookies of the exchange itself, wherever they occur; values whose name says
that they are secret; and text with the shape of a token or key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

MASK = "***"

#: Characters of the shortest value that is masked wherever it occurs; shorter ones would mask ordinary words.
_MIN_VALUE_CHARACTERS = 6

#: Words of a name that make its value a secret: `x-api-key`, `client_secret`, `accessToken`.
_SECRET_WORDS = frozenset(
    [
        "auth",
        "authentication",
        "authorization",
        "bearer",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "delegation",
        "jwt",
        "key",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "secret",
        "secrets",
        "session",
        "sid",
        "sig",
        "signature",
        "token",
    ]
)

#: Ends of names that are written without a separator: `apikey`, `authtoken`.
_SECRET_ENDINGS = ("apikey", "cookie", "credentials", "password", "privatekey", "secret", "secretkey", "token")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

#: A JSON member up to its colon; in JSON inside a JSON string the quotes have backslashes.
_MEMBER = re.compile(r'(?P<quote>\\*")(?P<name>[\w .-]{1,64})(?P=quote)\s*:\s*')

#: A number, true, or the start of an array or object.
_BARE = re.compile(r"[^\s,}\]\"\\\[{]+")

#: A pair of a query, a form or a cookie.
_PAIR = re.compile(r"(?P<name>[\w.-]{1,64})=(?P<value>[^&;\s\"'<>\\]+)")

_SHAPES = re.compile(
    r"(?P<bearer>\b[Bb]earer\s+)[\w.~+/=-]+"
    r"|(?P<login>://)[^\s/@\"'<>]+(?=@)"
    r"|\beyJ[\w-]{8,}(?:\.[\w-]*){0,4}"  # JWT
    r"|\b(?:sk|rk|ek|tpl?|xai|whsec|gh[a-z]|github_pat|glpat|xox[a-z]|hf)[-_][\w.~+/=-]{6,}"
    r"|\bma-[\w.-]{20,}"
    r"|\bAKIA[0-9A-Z]{12,}|\bAIza[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END).)*",
    re.DOTALL,
)


def is_secret_name(name: str) -> bool:
    """Return True if a value of this name is a secret: a header, a member, a parameter."""
    squashed = re.sub(r"[^a-z]", "", name.lower())
    return squashed.endswith(_SECRET_ENDINGS) or any(word.lower() in _SECRET_WORDS for word in _WORD.findall(name))


class Redactor:
    """Redacts the texts of one exchange, and learns its credentials from its headers."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    @property
    def longest(self) -> int:
        """The characters of the longest value that is known to be secret."""
        return max(map(len, self._values), default=0)

    def learn(self, headers: Iterable[tuple[str, str]]) -> None:
        """Remember the credentials and cookies in `headers`."""
        for name, value in headers:
            if is_secret_name(name):
                self._values.update(_list_values(name, value))

    def redact_headers(self, headers: Iterable[tuple[str, str]]) -> str:
        """Return headers as a JSON object without their secrets."""
        shown: dict[str, str] = {}
        for name, value in headers:
            text = MASK if is_secret_name(name) else self.redact(value)
            shown[name] = f"{shown[name]}, {text}" if name in shown else text
        return json.dumps(shown, ensure_ascii=False)

    def redact(self, text: str) -> str:
        """Return a URL or the text of a body, cut off anywhere, without its secrets."""
        # The longest first: one secret may be the start of another.
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        text = "".join(_mask_members(text))
        text = _PAIR.sub(_mask_pair, text)
        return _SHAPES.sub(lambda found: (found["bearer"] or found["login"] or "") + MASK, text)


def _list_values(name: str, value: str) -> Iterator[str]:
    """Yield the secrets in a header, as they are and as a URL writes them."""
    if "cookie" in name.lower():
        parts = [part.partition("=")[2].strip() for part in value.split(";")]
        # Attributes of Set-Cookie, such as Path, are no secrets.
        parts = parts[:1] if name.lower() == "set-cookie" else parts
    else:
        parts = [value, value.rpartition(" ")[2]]
    for part in parts:
        if len(part) >= _MIN_VALUE_CHARACTERS:
            yield part
            yield quote(part, safe="")


def _mask_members(text: str) -> Iterator[str]:
    """Yield the pieces of `text` with the values of secret JSON members masked."""
    written = 0
    for member in _MEMBER.finditer(text):
        if member.start() < written or not is_secret_name(member["name"]):
            continue
        yield text[written : member.end()]
        written = _find_value_end(text, member.end(), member["quote"])
        yield f"{member['quote']}{MASK}{member['quote']}"
    yield text[written:]


def _find_value_end(text: str, start: int, quote_mark: str) -> int:
    """Return the end of the JSON value at `start`, the end of `text` if the value is cut off."""
    if text.startswith(quote_mark, start):
        end = re.compile(rf"(?<!\\){re.escape(quote_mark)}").search(text, start + len(quote_mark))
        return end.end() if end else len(text)
    if text[start : start + 1] in ("{", "["):
        return _find_nested_end(text, start)
    bare = _BARE.match(text, start)
    return bare.end() if bare else start


def _find_nested_end(text: str, start: int) -> int:
    """Return the end of an array or object; brackets inside strings count, which can only mask more."""
    depth = 0
    for bracket in re.compile(r"[\[\]{}]").finditer(text, start):
        depth += 1 if bracket[0] in "[{" else -1
        if depth == 0:
            return bracket.end()
    return len(text)


def _mask_pair(pair: re.Match[str]) -> str:
    return f"{pair['name']}={MASK}" if is_secret_name(pair["name"]) else pair[0]
