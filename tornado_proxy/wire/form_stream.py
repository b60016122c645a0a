"""Follows a multipart body while it arrives: tells which bytes may be sent on, and collects its structure.

    arrives   --b CRLF headers CRLF CRLF text CRLF --b CRLF headers CRLF CRLF  20 MB of an image  CRLF --b-- CRLF
    feed()    nothing                                           all so far, then the new bytes     nothing
    form      the same                                          the first 1,025 bytes             the same

Bytes after a large content are held until the next one begins, or until the body has ended: whoever sends them checks
the form first.  The last delimiter and all that follows it are held, and so is the last byte of any other body: the
provider cannot act on a form before.
"""

from __future__ import annotations

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.wire.form_outline import MIN_CONTENT_BYTES

#: Bytes of the structure: headers of parts, texts, and the beginnings of large contents.
MAX_FORM_BYTES = 256 * 1024

#: Bytes that are added to a part at a time until its content is large; later ones are not copied.
_STEP_BYTES = 8 * 1024

_HEADERS_END = b"\r\n\r\n"

Piece = bytes | memoryview


class FormStream:
    """Takes a body in pieces.

    Args:
        boundary: The boundary between parts.
        max_parts: Delimiters of a body, at most.
        max_headers_bytes: Bytes after which a part has content, whatever they are: the parser rejects longer headers.
        kept_bytes: Bytes of a large content that stay in the form: more than a text may have.
        body_bytes: Bytes of the body.
    """

    __slots__ = (
        "_delimiter", "_delimiters", "_form", "_held", "_is_closed", "_kept_bytes", "_left_bytes", "_max_headers_bytes",
        "_max_parts", "_part", "_tail", "content_bytes",
    )  # fmt: skip

    def __init__(
        self, boundary: bytes, max_parts: int, max_headers_bytes: int, kept_bytes: int, body_bytes: int
    ) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._max_parts, self._max_headers_bytes, self._kept_bytes = max_parts, max_headers_bytes, kept_bytes
        #: Bytes that have not arrived.
        self._left_bytes = body_bytes
        self._delimiters = 0
        #: True from the last delimiter on.
        self._is_closed = False
        #: The structure of the complete parts, and of the large content that is arriving.
        self._form = bytearray()
        #: Complete parts that have not been sent on.
        self._held = bytearray()
        #: The part that is arriving, from its delimiter on, while its content is small.
        self._part = bytearray()
        #: The last bytes of a large content, if they can begin a delimiter.
        self._tail = b""
        #: Bytes of the large content that is arriving, as far as they have been returned; 0 if there is none.
        self.content_bytes = 0

    @property
    def withheld_bytes(self) -> int:
        """The number of bytes that feed() has taken and not returned."""
        return len(self._held) + len(self._part) + len(self._tail)

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes; return those that may be sent on, in their order.

        Raises:
            InvalidBody: the body has more parts, or more bytes beside its files, than any form.
        """
        passed: list[Piece] = []
        self._left_bytes -= len(data)
        if self._tail:
            data, self._tail = self._tail + data, b""
        start = 0
        while start < len(data):
            start = (
                self._feed_content(data, start, passed) if self.content_bytes else self._feed_part(data, start, passed)
            )
            if len(self._form) + len(self._part) > MAX_FORM_BYTES:
                raise InvalidBody(f"the multipart body has more than {MAX_FORM_BYTES // 1024} KiB beside its files")
        if self._left_bytes <= 0 and passed and not self.withheld_bytes:  # the body ends within a content
            last = passed.pop()
            passed.append(last[:-1])
            self._tail = bytes(last[-1:])
        return passed

    def form_so_far(self) -> bytes:
        """Return a form of the parts that have begun; call it while a large content arrives."""
        return bytes(self._form) + self._delimiter + b"--\r\n"

    def end(self) -> tuple[bytes, bytes]:
        """Return the form, and the bytes that were withheld: the body has ended."""
        return bytes(self._form + self._part), bytes(self._held + self._part) + self._tail

    def _feed_part(self, data: bytes, start: int, passed: list[Piece]) -> int:
        """Add bytes to the part that is arriving; return where the rest of `data` starts."""
        part, delimiter, before = self._part, self._delimiter, len(self._part)
        searched = max(before - len(delimiter) + 1, 1 if self._delimiters else 0)
        part += data[start : start + _STEP_BYTES]
        self._is_closed = self._is_closed or part.startswith(self._delimiter + b"--")
        end = part.find(delimiter, searched)
        if end < 0:
            self._begin_content(passed)
            return start + _STEP_BYTES
        if end - self._find_content(end) > MIN_CONTENT_BYTES:
            self._form += part[: self._find_content(end) + self._kept_bytes]
            passed.append(bytes(self._held + part[:end]))
            self._held.clear()
        else:
            self._form += part[:end]
            self._held += part[:end]
        self._begin_part()
        return start + end + len(delimiter) - before

    def _begin_content(self, passed: list[Piece]) -> None:
        """Let the part pass if its content is large."""
        part = self._part
        content = self._find_content(len(part))
        if len(part) - content <= MIN_CONTENT_BYTES:
            return
        self._form += part[: content + self._kept_bytes]
        self._tail = self._find_tail(bytes(part[1 - len(self._delimiter) :]))
        passed.append(bytes(self._held + part[: len(part) - len(self._tail)]))
        self.content_bytes = len(part) - content - len(self._tail)
        self._held.clear()
        part.clear()

    def _feed_content(self, data: bytes, start: int, passed: list[Piece]) -> int:
        """Let bytes of a large content pass; return where the rest of `data` starts."""
        if self._tail:  # the content has begun in this piece
            start -= len(self._tail)
            self._tail = b""
        delimiter = self._delimiter
        end = data.find(delimiter, start)
        if end < 0:
            self._tail = self._find_tail(data[max(start, len(data) - len(delimiter) + 1) :])
            passed.append(memoryview(data)[start : len(data) - len(self._tail)])
            self.content_bytes += len(passed[-1])
            return len(data)
        passed.append(memoryview(data)[start:end])
        self._begin_part()
        return end + len(delimiter)

    def _begin_part(self) -> None:
        """Note a delimiter.

        Raises:
            InvalidBody: there are more than a form has.
        """
        if self._delimiters == self._max_parts:
            raise InvalidBody(
                f"the multipart body has its boundary more than {self._max_parts} times; send fewer parts"
            )
        self._delimiters += 1
        self.content_bytes = 0
        self._part[:] = self._delimiter

    def _find_content(self, end: int) -> int:
        """Return where the content of the part starts that has `end` bytes so far; `end` after the last delimiter."""
        if self._is_closed:
            return end
        headers_end = self._part.find(_HEADERS_END, 0, min(end, self._max_headers_bytes))
        return self._max_headers_bytes if headers_end < 0 else headers_end + len(_HEADERS_END)

    def _find_tail(self, last: bytes) -> bytes:
        """Return the end of `last`, fewer bytes than a delimiter, with which one can begin."""
        begin = last.find(b"\r")
        return b"" if begin < 0 else last[begin:]
