"""The parts of the server that handlers of the admin port use.  Built once, in app.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tornado_proxy.gateway.services import Services
from tornado_proxy.state.watcher import StateWatcher


class Reloader(Protocol):
    """Reloads the configuration.  Both methods return what changes, and raise ConfigError if the files are invalid."""

    async def reload(self) -> list[str]:
        """Reload; after an error the old configuration stays in use."""

    async def check_reload(self) -> list[str]:
        """Check the files, and change nothing."""


@dataclass(frozen=True, slots=True)
class AdminServices:
    """The services of a handler of the admin port."""

    services: Services
    state: StateWatcher
    reloader: Reloader
