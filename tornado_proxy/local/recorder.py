"""Records the requests of this machine in the local ledger, under the ids that the hosted proxy gave them.

An id is known when the response arrives, so that nothing is stored before: the hosted proxy has the intent.
"""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

from msgspec.structs import replace

from tornado_proxy import tasks
from tornado_proxy.domain.errors import LedgerUnavailable, RequestError
from tornado_proxy.domain.record import RequestIntent, RequestRecord
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.recorder import FinishedRequest, Recorder, RecordLedger, RecordListeners, RunningRequest
from tornado_proxy.local.error_texts import ErrorTexts
from tornado_proxy.observability.access_log import UNKNOWN_LINE, RequestLine
from tornado_proxy.providers.contract import Endpoint

#: A request id of the hosted proxy.
_REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


class LocalView(Protocol):
    """Shows requests.  Must not block or raise."""

    def on_running(self, running: RunningRequest) -> None:
        """Called when a request or session runs."""

    def on_ended(self, request_id: str) -> None:
        """Called when it has ended."""

    def on_record(self, record: RequestRecord, message: str) -> None:
        """Called with the record of a request, and the error message of its response, or ""."""

    def on_refusal(self, error: RequestError, line: RequestLine) -> None:
        """Called when the local proxy has refused a request itself."""


class LocalRecorder(Recorder):
    """Records requests when they have ended, and shows them."""

    def __init__(
        self,
        ledger: RecordLedger,
        listeners: RecordListeners,
        view: LocalView,
        error_texts: ErrorTexts,
    ) -> None:
        super().__init__(ledger, listeners)
        self._ledger = ledger
        self._view = view
        self._error_texts = error_texts
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
        self._view.on_record(record, finished.redaction.text(self._error_texts.take(given)))
        storing = tasks.spawn(self._store(replace(finished, record=record)), "store a record")
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    def follow(self, running: RunningRequest) -> None:
        """Show a request or session that runs."""
        super().follow(running)
        self._view.on_running(running)

    def unfollow(self, request_id: str) -> None:
        """Show that it has ended."""
        super().unfollow(request_id)
        self._view.on_ended(request_id)

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
        self._view.on_refusal(error, line)

    async def _store(self, finished: FinishedRequest) -> None:
        try:
            await self._ledger.begin(finished.record.intent)
        except LedgerUnavailable:
            return  # the ledger logs it; the hosted proxy has the record
        super().finish(finished)
