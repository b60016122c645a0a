"""Responds to CORS preflights of listed origins (gateway/http/cors.py)."""

from __future__ import annotations

import re

from tornado_proxy.gateway.base_handler import BaseHandler

#: The methods of all served paths; a path that does not take the method says so in the response that follows.
_METHODS = "GET, POST, PUT, DELETE"

#: Seconds for which a browser keeps the response to a preflight.  Chromium keeps none longer than two hours.
_MAX_AGE_S = 600

#: A list of header names (RFC 9110 section 5.6.2, `token`).
_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z,\t -]{1,4096}")


class PreflightHandler(BaseHandler):
    """Responds to a preflight of an allowed origin, for any path and without a credential: browsers send none."""

    def options(self, *_: str) -> None:
        """Allow the request that the browser announces, with all its headers."""
        self.set_status(204)
        self.set_header("Access-Control-Allow-Methods", _METHODS)
        self.set_header("Access-Control-Max-Age", str(_MAX_AGE_S))
        names = self.request.headers.get("Access-Control-Request-Headers", "")
        # The wildcard would not include Authorization.
        if _NAMES.fullmatch(names):
            self.set_header("Access-Control-Allow-Headers", names)
        self.finish()
