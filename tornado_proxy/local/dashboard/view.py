"""Gives the requests of a local proxy to the dashboard, and to the lines that are shown after it."""

from __future__ import annotations

from tornado_proxy.domain.errors import RequestError
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.local.dashboard.feed import Feed
from tornado_proxy.local.dashboard.running import RunningRequests
from tornado_proxy.local.request_lines import RequestLines
from tornado_proxy.observability.access_log import RequestLine


class DashboardView:
    """Collects requests for the dashboard; implements LocalView.

    `lines` gets them too: it has the totals, and shows requests when the dashboard has ended.
    """

    def __init__(self, lines: RequestLines) -> None:
        self._lines = lines
        self.feed = Feed()
        self.running = RunningRequests()

    def on_running(self, running: RunningRequest) -> None:
        """Show a request or session that runs."""
        self.running.follow(running)

    def on_ended(self, request_id: str) -> None:
        """Show that it has ended."""
        self.running.unfollow(request_id)

    def on_record(self, record: RequestRecord, message: str) -> None:
        """Show a request that has ended."""
        self._lines.on_record(record, message)
        if record.intent.session is not None:
            self.running.drop_estimate(record.intent.session)
        self.feed.on_record(record, message)

    def on_refusal(self, error: RequestError, line: RequestLine) -> None:
        """Show a request that the local proxy has refused itself."""
        self._lines.on_refusal(error, line)
        self.feed.on_refusal(error, line)
