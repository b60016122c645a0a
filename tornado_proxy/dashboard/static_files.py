"""Serves the style sheet and the scripts; they hold nothing of a ledger, and need no session."""

from __future__ import annotations

from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.domain.errors import NotFound


class StaticFileHandler(DashboardHandler):
    """A static file.  Its URL names its version."""

    def get(self, name: str) -> None:
        """Send the file."""
        file = self.site.files.get(name)
        if file is None:
            raise NotFound("there is no such file")
        self.set_header("Content-Type", file.media_type)
        if self.get_query_argument("v", "") == file.version:
            self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.finish(file.content)


class UnknownPageHandler(DashboardHandler):
    """Responds to paths below that of the dashboard that are no page."""

    def get(self) -> None:
        """Raise NotFound."""
        raise NotFound("the dashboard has no such page")
