"""The dashboard of one port: its services, its templates and its static files.  Built once, in app.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tornado.escape import to_unicode, xhtml_escape
from tornado.template import Loader

from tornado_proxy.dashboard.requests.live_requests import LiveFeed
from tornado_proxy.domain.errors import Overloaded
from tornado_proxy.gateway.services import Services
from tornado_proxy.state.watcher import StateWatcher
from tornado_proxy.wire.visible_text import escape_controls

_FOLDER = Path(__file__).parent

#: Lookups of secrets that wait at the same time, at each port.
MAX_LOOKUPS = 32

#: The root of all pages.
ROOT = "/dashboard"

_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file for browsers; `version` is part of its URL, so that it can be cached for good."""

    content: bytes
    media_type: str
    version: str


@cache
def load_static_files() -> Mapping[str, StaticFile]:
    """Return the static files by name."""
    return {
        path.name: StaticFile(content, _MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:16])
        for path in sorted((_FOLDER / "static").iterdir())
        if path.suffix in _MEDIA_TYPES
        for content in (path.read_bytes(),)
    }


@cache
def _load_templates() -> Loader:
    folder = str(_FOLDER / "templates")
    return Loader(folder, autoescape="escape_text", namespace={"escape_text": escape_text}, whitespace="oneline")


def escape_text(text: str | bytes) -> str:
    """Return HTML of a text, which clients can have chosen: no markup, and nothing that reorders the text around it."""
    return xhtml_escape(escape_controls(to_unicode(text)))


class Lookups:
    """Bounds the lookups of secrets that wait at the same time.

    Anyone can send a cookie, and the thread that looks it up also reads which access keys are revoked.
    """

    def __init__(self) -> None:
        self._waiting = 0

    @contextmanager
    def count(self) -> Iterator[None]:
        """Count a lookup while the block runs.

        Raises:
            Overloaded: too many wait.
        """
        if self._waiting >= MAX_LOOKUPS:
            raise Overloaded("too many pages of the dashboard are asked for; try again shortly")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


@dataclass(frozen=True, slots=True)
class Site:
    """The dashboard of a port.

    Attributes:
        feed: The running requests; both ports share it.
        is_admin: True for the admin port, whose sessions are those of the operator; the client port has all others.
    """

    services: Services
    state: StateWatcher
    is_admin: bool
    feed: LiveFeed
    lookups: Lookups = field(default_factory=Lookups)
    files: Mapping[str, StaticFile] = field(default_factory=load_static_files)

    @property
    def cookie(self) -> str:
        """The name of the session cookie.  Browsers share cookies among the ports of a host, so each has its own."""
        return "llm_proxy_admin_dashboard" if self.is_admin else "llm_proxy_dashboard"

    def render(self, template: str, **values: object) -> bytes:
        """Return a page; escape_text() is applied to all values."""
        return _load_templates().load(template).generate(**values)
