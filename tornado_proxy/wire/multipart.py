"""A buffered multipart/form-data body as named spans: where each part's bytes begin and end, without copying one.

The parser of python-multipart (the one behind Starlette and FastAPI) does the work.  What is added here is refusal of
every body that two readers could read differently, because the provider's reader is not ours: a model that we did not
see must not be able to hide behind one that we did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from tornado_proxy.domain.errors import InvalidBody

if TYPE_CHECKING:  # the library defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

#: Parts in one body.  An edit takes up to sixteen images and a dozen fields; a hundred leaves room for array fields.
MAX_PARTS = 100
#: Header lines of one part, and bytes of one of them: four times what clients send.
MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096
#: Bytes of a text field that is read.  Model names, sizes and formats are below a hundred.
MAX_TEXT_BYTES = 1024

#: RFC 2046 section 5.1.1 `boundary := 0*69<bchars> bcharsnospace`.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
#: RFC 2045 section 5.1 `parameter`, with RFC 822 quoted pairs.
_PARAMETER = re.compile(r""";\s*([!#$%&'*+\-.^`|~\w]+)\s*=\s*(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]*))\s*""")
_QUOTED_PAIR = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True)
class Part:
    """One part.  Its content is `body[start:end]`; `is_file` where it has a file name (`filename` or `filename*`)."""

    name: str
    start: int
    end: int
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of a body, in its order."""

    body: bytes
    parts: tuple[Part, ...]

    def text(self, name: str) -> str | None:
        """The text field `name`, None where there is none.

        Raises:
            InvalidBody: it is there twice, is a file, is longer than MAX_TEXT_BYTES or not UTF-8.
        """
        part = self._only(name)
        if part is None:
            return None
        if part.is_file:
            raise InvalidBody(f"the form field {name!r} is a file; it must be text", param=name)
        if part.end - part.start > MAX_TEXT_BYTES:
            raise InvalidBody(f"the form field {name!r} is longer than {MAX_TEXT_BYTES} bytes", param=name)
        try:
            return self.body[part.start : part.end].decode()
        except UnicodeDecodeError as error:
            raise InvalidBody(f"the form field {name!r} is not UTF-8", param=name) from error

    def length(self, name: str) -> int:
        """Bytes of all parts called `name` or `name[]`."""
        return sum(part.end - part.start for part in self.parts if part.name in (name, f"{name}[]"))

    def content(self, name: str) -> memoryview | None:
        """The bytes of the part `name` in place, None where there is none.

        Raises:
            InvalidBody: it is there twice.
        """
        part = self._only(name)
        return None if part is None else memoryview(self.body)[part.start : part.end]

    def _only(self, name: str) -> Part | None:
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise InvalidBody(f"the form field {name!r} is given {len(found)} times; send it once", param=name)
        return found[0] if found else None


def read_form(body: bytes, content_type: str) -> Form:
    """Find the parts of `body`.  `content_type` is the request's header as it came.

    Fields may come in any order; a preamble and an epilogue are passed over (RFC 2046 section 5.1.1).

    Raises:
        InvalidBody: not multipart/form-data, no closing boundary, more than MAX_PARTS parts, header lines beyond
            the limits, or a part whose name is missing or could be read in two ways.

    Source: RFC 7578, RFC 2046 section 5.1.
    """
    boundary = _boundary(content_type)
    start = _first_delimiter(body, boundary)
    collector = _Collector(start)
    parser = MultipartParser(
        boundary, collector.callbacks(), max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES
    )
    try:
        # A preamble is the only thing that costs a copy; no client library writes one.
        parser.write(body[start:] if start else body)
    except FormParserError as error:
        raise InvalidBody(f"the multipart body cannot be read: {error}") from error
    if not collector.ended:
        raise InvalidBody("the multipart body has no closing boundary; it was cut off")
    return Form(body, tuple(collector.parts))


def _boundary(content_type: str) -> bytes:
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise InvalidBody("this endpoint takes multipart/form-data; set the Content-Type with its boundary")
    boundary = _parameters(content_type[len(kind) :], "Content-Type").get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise InvalidBody("the Content-Type multipart/form-data needs a boundary of 1 to 70 characters (RFC 2046)")
    return boundary.encode("ascii")


def _first_delimiter(body: bytes, boundary: bytes) -> int:
    opening = b"--" + boundary
    if body.startswith(opening):
        return 0
    at = body.find(b"\r\n" + opening)
    if at < 0:
        raise InvalidBody("the multipart body does not hold the boundary that its Content-Type names")
    return at + 2


def _parameters(text: str, header: str) -> dict[str, str]:
    """`; name="x"; filename="y"` as {"name": "x", "filename": "y"}; names in lower case."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise InvalidBody(f"a {header} header of the multipart body cannot be read")
        key = match[1].lower()
        if key in found:
            raise InvalidBody(f"a {header} header of the multipart body has the parameter {key!r} twice")
        found[key] = match[3] if match[2] is None else _QUOTED_PAIR.sub(r"\1", match[2])
        at = match.end()
    return found


@dataclass(slots=True)
class _Collector:
    """Takes the parser's callbacks; offsets are shifted by `base` to those of the whole body."""

    base: int
    parts: list[Part] = field(default_factory=list)
    ended: bool = False
    _headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    _field: bytes = b""
    _value: bytes = b""
    _start: int = 0
    _end: int = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._on_end,
        }

    def _part_begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise InvalidBody(f"the multipart body has more than {MAX_PARTS} parts")
        self._headers = []
        self._start = self._end = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field = data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = data[start:end]

    def _header_end(self) -> None:
        self._headers.append((self._field.lower(), self._value))
        self._field = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        # The body is written at once, so that a part's data comes in one piece.
        self._start, self._end = start + self.base, end + self.base

    def _part_end(self) -> None:
        name, is_file = _identify(self._headers)
        self.parts.append(Part(name, self._start, self._end, is_file))

    def _on_end(self) -> None:
        self.ended = True


def _identify(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bool]:
    """Name of a part, and whether it is a file (RFC 7578 section 4.2)."""
    found = dict(headers)
    dispositions = [value for key, value in headers if key == b"content-disposition"]
    if len(dispositions) != 1:
        raise InvalidBody("each part of a multipart body needs exactly one Content-Disposition header")
    # RFC 7578 section 4.7 gave up Content-Transfer-Encoding; only the encodings that change nothing are harmless.
    if found.get(b"content-transfer-encoding", b"binary").strip().lower() not in (b"binary", b"8bit", b"7bit"):
        raise InvalidBody("a part has a Content-Transfer-Encoding; send its bytes as they are")
    kind, _, rest = dispositions[0].decode("utf-8", "replace").partition(";")
    parameters = _parameters(";" + rest if rest else "", "Content-Disposition")
    if kind.strip().lower() != "form-data" or "name" not in parameters or "name*" in parameters:
        raise InvalidBody('a part needs the header Content-Disposition: form-data; name="..."')
    return parameters["name"], "filename" in parameters or "filename*" in parameters
