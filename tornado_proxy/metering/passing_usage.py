"""Reads the usage of a pending request from a response that passes to a client, such as a fetch by the object's id.

The response is relayed whatever this reader does: it never raises and never waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.observability import metrics
from tornado_proxy.providers.contract import DeferredUsage, ResponseHead, UsageReader

_log = logging.getLogger(__name__)


class PassingUsage:
    """Reads one response: response_started(), feed() for each chunk, close().

    Args:
        deferred: How the usage of the object is read.
        facts: The facts of the request that created the object.
        on_report: Called once at the end of a 2xx response, with its usage.
        request_id: The request that created the object.
    """

    def __init__(
        self,
        deferred: DeferredUsage,
        facts: RequestFacts,
        on_report: Callable[[UsageReport], None],
        request_id: str,
    ) -> None:
        self._request_id = request_id
        self._deferred = deferred
        self._facts = facts
        self._on_report = on_report
        self._reader: UsageReader | None = None

    def response_started(self, head: ResponseHead) -> None:
        """Choose the reader by the response head; an error status states no usage."""
        if not head.ok:
            return
        try:
            self._reader = self._deferred.reader(self._facts, head)
        except Exception:  # noqa: BLE001  # a bug of a reader must not break a response; the next poll settles
            self._on_failure()

    def stop(self) -> None:
        """Read no more: the body is in a form that cannot be read."""
        self._reader = None

    def feed(self, data: bytes) -> None:
        """Read the next body bytes."""
        if self._reader is not None:
            self._guard(lambda reader: reader.feed(data))

    def close(self, *, complete: bool) -> None:
        """End the body and report its usage."""
        if self._reader is not None:
            self._guard(lambda reader: self._finish(reader, complete=complete))

    def _finish(self, reader: UsageReader, *, complete: bool) -> None:
        reader.close(complete=complete)
        self._on_report(reader.result())

    def _guard(self, step: Callable[[UsageReader], None]) -> None:
        assert self._reader is not None
        try:
            step(self._reader)
        except Exception:  # noqa: BLE001  # a bug of a reader must not break a response; the next poll settles
            self._on_failure()

    def _on_failure(self) -> None:
        self._reader = None
        metrics.READER_FAILURES.inc()
        _log.exception("usage reader failed", extra={"request_id": self._request_id})
