"""`GET /openapi.json`: the description of the admin port, which schemas/admin.openapi.yaml holds."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import yaml

from tornado_proxy import __version__
from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.config.bundled import find_folder


@functools.cache
def load_openapi() -> dict[str, Any]:
    """Return the OpenAPI document of the admin port.  It reads a file, so call it in a thread."""
    text = (find_folder("schemas") / "admin.openapi.yaml").read_text("utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    document["info"]["version"] = __version__
    return document


class OpenApiHandler(AdminHandler):
    """The OpenAPI document."""

    async def get(self) -> None:
        """Respond with the document."""
        self.respond(await asyncio.to_thread(load_openapi))
