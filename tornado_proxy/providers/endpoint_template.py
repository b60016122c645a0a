"""Folds ids in paths of providers into the templates of their endpoints."""

from __future__ import annotations

import functools
import re

from tornado_proxy.providers.registry import PROVIDERS

_PATHS = {endpoint.path for provider in PROVIDERS for endpoint in provider.endpoints}

#: Each template with the pattern of its paths.
_TEMPLATES = tuple(
    (path, re.compile(re.escape(path).replace(re.escape("{id}"), "[^/]+"))) for path in _PATHS if "{id}" in path
)


@functools.lru_cache(maxsize=4096)
def fold_ids(path: str) -> str:
    """Return the template of a path such as /v1/responses/resp_1, and any other path unchanged."""
    # Fixed paths first: /v1/responses/compact is no response with the id "compact".
    if path in _PATHS:
        return path
    return next((template for template, pattern in _TEMPLATES if pattern.fullmatch(path)), path)
