"""Reads usage from a whole response body, for responses that are one small JSON object."""

from __future__ import annotations

from collections.abc import Callable

from tornado_proxy.domain.units import MIB
from tornado_proxy.domain.usage import UsageReport

#: Bytes of a body that are kept.  A message of 128,000 output tokens has less than 1 MB, with search results some MB.
MAX_BODY_BYTES = 32 * MIB


class BodyReader:
    """Buffers a body and passes it to `make_report` at the end.

    A body that broke off is passed as far as it arrived, one above MAX_BODY_BYTES as far as it was kept.  This reader
    is for endpoints whose responses are small: a message of text, the state of a batch.
    """

    object_id: str | None = None

    def __init__(self, make_report: Callable[[bytes], UsageReport]) -> None:
        self._make_report = make_report
        self._chunks: list[bytes] = []
        self._free_bytes = MAX_BODY_BYTES

    def feed(self, data: bytes) -> None:
        """Buffer the next body bytes."""
        if not self._free_bytes:
            return
        self._chunks.append(data[: self._free_bytes])
        self._free_bytes -= len(self._chunks[-1])

    def close(self, *, complete: bool) -> None:
        """End the body."""

    def result(self) -> UsageReport:
        """Return the report of the body."""
        body = b"".join(self._chunks)
        # The meter outlives the response; the body shall not.
        self._chunks.clear()
        return self._make_report(body)
