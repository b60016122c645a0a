"""Records the requests of this machine in the local ledger, under the ids that the hosted proxy gave them.

An id is known when the response arrives, so that nothing is stored before: the hosted proxy has the intent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from msgspec.structs import replace

from tornado_proxy import tasks
from tornado_proxy.domain.errors import LedgerUnavailable, RequestError
from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.recorder import FinishedRequest, Recorder, RecordLedger, RecordListeners
from tornado_proxy.observability.access_log import UNKNOWN_LINE, RequestLine
from tornado_proxy.providers.contract import Endpoint

#: A request id of the hosted proxy.
_REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


class LocalRecorder(Recorder):
    """Records requests when they have ended, and shows them.

    `on_record` gets each record, `on_refusal` each error of the local proxy itself; they must not block or raise.
    """

    def __init__(
        self,
        ledger: RecordLedger,
        listeners: RecordListeners,
        on_record: Callable[[RequestRecord], None],
        on_refusal: Callable[[RequestError, RequestLine], None],
    ) -> None:
        super().__init__(ledger, listeners)
        self._ledger = ledger
        self._on_record = on_record
        self._on_refusal = on_refusal
        self._storing: set[asyncio.Task[None]] = set()

    async def begin(self, intent: RequestIntent) -> None:
        """Do nothing: see the module's docstring."""

    def write_ahead(self, finished: FinishedRequest) -> None:
        """Do nothing: see the module's docstring."""

    def finish(self, finished: FinishedRequest) -> None:
        """Record and show the end of a request."""
        record = finished.record
        given = record.upstream_request_id or ""
        if _REQUEST_ID.fullmatch(given):
            record = replace(record, intent=replace(record.intent, request_id=given))
        self._on_record(record)
        storing = tasks.spawn(self._store(replace(finished, record=record)), "store a record")
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    async def close(self) -> None:
        """Wait until all records are in the ledger."""
        if self._storing:
            await asyncio.wait(self._storing)

    def reject(
        self,
        request_id: str,
        error: RequestError,
        context: RequestContext[Endpoint] | None,
        line: RequestLine = UNKNOWN_LINE,
    ) -> None:
        """Show and count a request that the local proxy has refused itself."""
        super().reject(request_id, error, context, line)
        self._on_refusal(error, line)

    async def _store(self, finished: FinishedRequest) -> None:
        try:
            await self._ledger.begin(finished.record.intent)
        except LedgerUnavailable:
            return  # the ledger logs it; the hosted proxy has the record
        super().finish(finished)
