"""The errors with which an HTTP library says that a connection broke."""

from __future__ import annotations

import sys


def request_errors() -> tuple[type[Exception], ...]:
    """Return these classes of each HTTP library that is loaded; an SDK uses one of both."""
    return tuple(sys.modules[name].RequestError for name in ("httpx2", "httpx") if name in sys.modules)
