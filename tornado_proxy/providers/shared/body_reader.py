"""Reads usage from a whole response body, for responses that are one small JSON object."""

from __future__ import annotations

from collections.abc import Callable

from tornado_proxy.domain.usage import UsageReport


class BodyReader:
    """Buffers a body and passes it to `make_report` at the end.  A body that broke off is passed as far as it arrived.

    The buffer has no limit of its own, so this reader is only for endpoints whose responses are small: a message of
    text, the state of a batch.
    """

    object_id: str | None = None

    def __init__(self, make_report: Callable[[bytes], UsageReport]) -> None:
        self._make_report = make_report
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Buffer the next body bytes."""
        self._chunks.append(data)

    def close(self, *, complete: bool) -> None:
        """End the body."""

    def result(self) -> UsageReport:
        """Return the report of the body."""
        body = b"".join(self._chunks)
        # The meter outlives the response; the body shall not.
        self._chunks.clear()
        return self._make_report(body)
