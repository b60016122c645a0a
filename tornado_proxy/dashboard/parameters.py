"""The query parameters of a page.  The URL is the whole state of a page, so that it can be kept, sent and repeated."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from tornado_proxy.domain.errors import BadRequest

#: Formats of a page: HTML, or exactly its rows.
FORMATS = ("html", "csv", "json")


def read_parameters(arguments: Mapping[str, list[bytes]]) -> dict[str, str]:
    """Return the parameters of a URL; an empty one, which a form sends for an empty field, counts as missing.

    Raises:
        BadRequest: a parameter is repeated.
    """
    given: dict[str, str] = {}
    for name, values in arguments.items():
        filled = [value for value in values if value]
        if len(filled) > 1:
            raise BadRequest(f"parameter {name[:40]} is repeated; send it once", param=name[:40])
        if filled:
            given[name] = filled[0].decode("utf-8", "replace")
    return given


def check_known(given: Iterable[str], known: Container[str]) -> None:
    """Raise BadRequest for a parameter that a page does not know: a misspelled filter would show too much."""
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise BadRequest(f"unknown parameter {unknown[:40]}", param=unknown[:40])


def read_choice(given: Mapping[str, str], name: str, choices: Iterable[str], default: str) -> str:
    """Return the value of a parameter that has a closed set of values.

    Raises:
        BadRequest: it has another value.
    """
    known, value = tuple(choices), given.get(name, default)
    if value not in known:
        raise BadRequest(f"{name} must be one of {', '.join(known)}", param=name)
    return value


def read_count(given: Mapping[str, str], name: str, default: int, limit: int) -> int:
    """Return the value of a parameter that is a number from 1 to `limit`.

    Raises:
        BadRequest: it is no such number.
    """
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= limit):
        raise BadRequest(f"{name} must be a number from 1 to {limit}", param=name)
    return int(text)


def make_url(path: str, parameters: Mapping[str, str | None], **changes: str | None) -> str:
    """Return the URL of a page with parameters; those that are None are left out."""
    filled = {name: value for name, value in {**parameters, **changes}.items() if value is not None}
    return f"{path}?{urlencode(filled, errors='replace')}" if filled else path


@dataclass(frozen=True, slots=True)
class PageUrl:
    """The URL of a page, and of the same page with other parameters."""

    path: str
    parameters: Mapping[str, str | None]

    def change(self, **changes: str | None) -> str:
        """Return the URL with other parameters; None removes one."""
        return make_url(self.path, self.parameters, **changes)
