"""The page of the requests that run now, and the stream of events that keeps it up to date."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import ClassVar

from tornado.iostream import StreamClosedError

from tornado_proxy.dashboard.amounts import show_amount
from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.parameters import FORMATS, check_known, read_choice
from tornado_proxy.dashboard.requests.live_requests import COLUMNS, TICK_S, TRUSTED_COLUMNS, LiveRequests
from tornado_proxy.domain.errors import RequestError

#: Seconds after which a stream of events ends, and the browser asks again; and between two checks of its session.
_MAX_STREAM_S, _CHECK_INTERVAL_S = 600.0, 15.0

#: Seconds that a browser may take to read an event.
_WRITE_TIMEOUT_S = 10.0


class LivePageHandler(DashboardHandler):
    """The page."""

    name: ClassVar[str] = "now"

    async def get(self) -> None:
        """Show the running requests, or send them."""
        viewer = await self.identify()
        check_known(self.parameters, ("format",))
        live = await self.site.feed.look(viewer, self.now)
        if read_choice(self.parameters, "format", FORMATS, FORMATS[0]) != "html":
            self.send_rows("running", COLUMNS, live.rows, TRUSTED_COLUMNS)
            return
        link = self.make_page_url("/now", {})
        self.show(
            "now.html",
            "Now",
            live=live,
            shown=show_live(live, viewer.project_names),
            names=viewer.project_names,
            reload_url=link.change(),
            events_url=self.make_page_url("/now/events", {}).change(),
            downloads={name: link.change(format=name) for name in ("csv", "json")},
        )


class LiveEventsHandler(DashboardHandler):
    """The stream of events: the running requests, once a second.

    Ends after _MAX_STREAM_S, when the browser leaves or does not read, at a shutdown, and when the session ends.
    """

    async def get(self) -> None:
        """Send events."""
        viewer = await self.identify()
        with self.site.feed.streams.count(viewer.asker):
            self.set_header("Content-Type", "text/event-stream")
            self.set_header("X-Accel-Buffering", "no")  # nginx in front must not collect the events
            self.log_request()
            with contextlib.suppress(StreamClosedError, TimeoutError, RequestError):
                await asyncio.wait_for(self._send_events(), _MAX_STREAM_S)
        with contextlib.suppress(StreamClosedError):
            await self.finish()

    async def head(self, *arguments: str) -> None:
        """Respond without a stream."""
        await self.identify()
        self.set_header("Content-Type", "text/event-stream")
        self.log_request()

    async def _send_events(self) -> None:
        """Send events until the session ends.

        Raises:
            RequestError: the session or the viewer's rights have ended.
            TimeoutError: the browser does not read.
            StreamClosedError: it has left.
        """
        self.write("retry: 3000\n\n")
        checked_at = asyncio.get_running_loop().time()
        while not self.services.capacity.draining:
            if asyncio.get_running_loop().time() - checked_at >= _CHECK_INTERVAL_S:
                checked_at = asyncio.get_running_loop().time()
                await self.identify()
            assert self.viewer is not None, "identify() sets it"
            live = await self.site.feed.look(self.viewer, datetime.now(UTC))
            self.write(f"data: {json.dumps(show_live(live, self.viewer.project_names))}\n\n")
            await asyncio.wait_for(self.flush(), _WRITE_TIMEOUT_S)
            await asyncio.sleep(TICK_S)

    def on_connection_close(self) -> None:
        """Called by Tornado when the browser has left; the next write then fails."""


def show_live(live: LiveRequests, names: dict[str, str]) -> dict[str, object]:
    """Return the document of an event: texts for people, which the script shows as text."""
    return {
        "count": live.count,
        "cost": show_amount(live.cost),
        "rows": [
            {
                **{name: row[name] or "" for name in ("request_id", "caller", "model", "endpoint")},
                "project": names.get(str(row["project"]), row["project"]),
                "started": str(row["started_at"])[11:19],
                "seconds": f"{row['seconds']} s",
                "cost": "not known yet" if row["cost"] is None else row["cost"],
            }
            for row in live.rows
        ],
    }
