"""Parses a buffered multipart/form-data body into named spans: the start and end of each part, without copies.

python-multipart, the parser of Starlette and FastAPI, does the work; of large parts it gets the headers only.  This
module adds one rule: a body that two parsers could read differently is rejected.  The provider has another parser, so a
client could otherwise name one model to the proxy and another one to the provider.

Sources: RFC 7578 (multipart/form-data), RFC 2046 section 5.1 (multipart).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.wire.form_outline import Body, FormOutline, make_form_outline
from tornado_proxy.wire.form_stream import FormStream

if TYPE_CHECKING:  # python-multipart defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

#: Parts of one body.  An image edit has up to 16 images and 12 fields; the rest is for array fields.
MAX_PARTS = 100
#: Header lines of one part, and bytes of one header line: four times as many as known clients send.
MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096
_MAX_PART_HEADERS_BYTES = 2 * MAX_HEADERS * MAX_HEADER_BYTES
#: Bytes of a text field that the proxy reads.  Model names, sizes and formats have fewer than 100.
MAX_TEXT_BYTES = 1024

#: RFC 2046 section 5.1.1 `boundary := 0*69<bchars> bcharsnospace`.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
#: RFC 2045 section 5.1 `parameter`, with RFC 822 quoted pairs; it may be empty (RFC 9110 section 5.6.6).
_PARAMETER = re.compile(r""";\s*(?:([!#$%&'*+\-.^`|~\w]+)\s*=\s*(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]*))\s*)?""")
_LINE_ENDS = re.compile(rb"(?:\r\n)+")
#: RFC 2046 section 5.1.1 `transport-padding`, and line ends.
_PADDING = re.compile(rb"[ \t\r\n]*")
#: The end of an error of the parser.
_POSITION = re.compile(r" at \d+$")
_QUOTED_PAIR = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True)
class Part:
    """One part.  Its content is `body[start:end]`; `is_file` is True if it has a `filename` or `filename*`."""

    name: str
    start: int
    end: int
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """A body and its parts, in their order."""

    body: Body
    parts: tuple[Part, ...]

    def text(self, name: str) -> str | None:
        """Return the text field `name`, or None if it is missing.

        Raises:
            InvalidBody: The field occurs twice, is a file, is longer than MAX_TEXT_BYTES or is not UTF-8.
        """
        part = self._find(name)
        if part is None:
            return None
        if part.is_file:
            raise InvalidBody(f"form field {name!r} must be text, not a file", param=name)
        if part.end - part.start > MAX_TEXT_BYTES:
            raise InvalidBody(
                f"form field {name!r} must have at most {MAX_TEXT_BYTES} bytes, not {part.end - part.start}", param=name
            )
        try:
            return self.body[part.start : part.end].decode()
        except UnicodeDecodeError as error:
            raise InvalidBody(f"form field {name!r} must be UTF-8", param=name) from error

    def length(self, name: str) -> int:
        """Return the number of bytes in all parts named `name` or `name[]`."""
        return sum(part.end - part.start for part in self.parts if part.name in (name, f"{name}[]"))

    def content(self, name: str) -> memoryview | None:
        """Return the bytes of the part `name` without a copy, or None if it is missing.

        Raises:
            InvalidBody: The part occurs twice.
        """
        part = self._find(name)
        return None if part is None else memoryview(self.body)[part.start : part.end]

    def _find(self, name: str) -> Part | None:
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise InvalidBody(f"form field {name!r} was sent {len(found)} times; send it once", param=name)
        return found[0] if found else None


def is_form(content_type: str) -> bool:
    """Return True if a body of this Content-Type is multipart."""
    return content_type.lower().lstrip().startswith("multipart/")


def open_form_stream(content_type: str, body_bytes: int) -> FormStream:
    """Return the stream of a form of `body_bytes` that arrives.

    Raises:
        InvalidBody: the Content-Type names no form with a boundary.
    """
    return FormStream(_boundary(content_type), MAX_PARTS, _MAX_PART_HEADERS_BYTES, MAX_TEXT_BYTES + 1, body_bytes)


def read_form(body: Body, content_type: str) -> Form:
    """Parse `body`; `content_type` is the value of the request's Content-Type header.

    RFC 2046 section 5.1.1 allows text before the first boundary and after the last.  No client library writes it, and
    another parser may find a second form in it, so only line ends may stand there.

    Raises:
        InvalidBody: The body is not multipart/form-data, has no closing boundary, has more than MAX_PARTS parts or
            header lines beyond the limits, a part whose name is missing or ambiguous, or text around the parts.
    """
    boundary = _boundary(content_type)
    outline = make_form_outline(body, boundary, MAX_PARTS, _MAX_PART_HEADERS_BYTES)
    if outline is None:
        raise InvalidBody(f"the multipart body has its boundary more than {MAX_PARTS} times; send fewer parts")
    text = outline.text
    start = _first_delimiter(text, boundary)
    collector = _Collector(start)
    parser = MultipartParser(
        boundary, collector.callbacks(), max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES
    )
    try:
        parser.write(text[start:] if start else text)
    except FormParserError as error:
        fault = _POSITION.sub("", str(error))  # a position in the outline says nothing
        raise InvalidBody(f"invalid multipart body: {fault}") from error
    if not collector.ended:
        raise InvalidBody("the multipart body has no closing boundary; send the whole body")
    _check_end(text, boundary, collector.parts)
    return Form(body, tuple([_find_in_body(part, outline) for part in collector.parts]))


def _find_in_body(part: Part, outline: FormOutline) -> Part:
    start, end = outline.find_in_body(part.start), outline.find_in_body(part.end)
    return Part(part.name, start, end, part.is_file)


def _boundary(content_type: str) -> bytes:
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise InvalidBody("the Content-Type must be multipart/form-data with a boundary")
    boundary = _parameters(content_type[len(kind) :], "Content-Type").get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise InvalidBody("the boundary in the Content-Type must have 1 to 70 characters (RFC 2046 section 5.1.1)")
    return boundary.encode("ascii")


def _first_delimiter(body: bytes, boundary: bytes) -> int:
    line_ends = _LINE_ENDS.match(body)
    start = 0 if line_ends is None else line_ends.end()
    if not body.startswith(b"--" + boundary, start):
        raise InvalidBody("the multipart body must begin with the boundary that its Content-Type names")
    return start


def _check_end(body: bytes, boundary: bytes, parts: Sequence[Part]) -> None:
    end = max((part.end for part in parts), default=0)  # an empty part has no position
    closing = body.find(b"--" + boundary + b"--", end) + len(boundary) + 4
    if _PADDING.fullmatch(body, closing) is None:
        raise InvalidBody("the multipart body has text after its closing boundary; end it there")


def _parameters(text: str, header: str) -> dict[str, str]:
    """Parse `; name="x"; filename="y"` to {"name": "x", "filename": "y"}; names are in lower case."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise InvalidBody(f"the multipart body has an invalid {header} header")
        at = match.end()
        if match[1] is None:
            continue
        key = match[1].lower()
        if key in found:
            raise InvalidBody(f"the multipart body has a {header} header with parameter {key!r} twice")
        found[key] = match[3] if match[2] is None else _QUOTED_PAIR.sub(r"\1", match[2])
    return found


@dataclass(slots=True)
class _Collector:
    """Collects the parts that the parser reports.  `base` is the offset of the parsed bytes in the body."""

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
        # read_form() writes the body in one call, so the parser reports the data of a part once.
        self._start, self._end = start + self.base, end + self.base

    def _part_end(self) -> None:
        name, is_file = _identify(self._headers)
        self.parts.append(Part(name, self._start, self._end, is_file))

    def _on_end(self) -> None:
        self.ended = True


def _identify(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bool]:
    """Return the name of a part, and True if it is a file (RFC 7578 section 4.2)."""
    dispositions = [value for key, value in headers if key == b"content-disposition"]
    if len(dispositions) != 1:
        raise InvalidBody(
            f"each part of a multipart body must have one Content-Disposition header, not {len(dispositions)}"
        )
    # RFC 7578 section 4.7 deprecates Content-Transfer-Encoding; only the encodings that change no byte are safe.
    encodings = [value.strip().lower() for key, value in headers if key == b"content-transfer-encoding"]
    if not {b"binary", b"8bit", b"7bit"}.issuperset(encodings):
        raise InvalidBody("a part has a Content-Transfer-Encoding that changes its bytes; send the bytes unencoded")
    kind, _, rest = dispositions[0].decode("utf-8", "replace").partition(";")
    parameters = _parameters(";" + rest if rest else "", "Content-Disposition")
    if kind.strip().lower() != "form-data" or "name" not in parameters or "name*" in parameters:
        raise InvalidBody(
            'each part of a multipart body must have the header Content-Disposition: form-data; name="..."'
        )
    return parameters["name"], "filename" in parameters or "filename*" in parameters
