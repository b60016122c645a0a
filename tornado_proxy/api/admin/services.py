"""The parts of the server that handlers of the admin port use.  Built once, in app.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tornado_proxy.gateway.services import Services
from tornado_proxy.state.watcher import StateWatcher


class Reloader(Protocol):
    """Reloads the configuration."""

    async def reload(self) -> list[str]:
        """Reload this process and return the names of the changed keys.

        Raises:
            ConfigError: the configuration is invalid; the old one stays in use.
        """

    async def check_reload(self) -> list[str]:
        """Check the files as reload() does, and return the names of the keys that would change."""

    async def request_reload_of_others(self, actor: str) -> None:
        """Tell the other processes of the ledger to reload.

        Raises:
            LedgerUnavailable: they cannot be told.
        """


@dataclass(frozen=True, slots=True)
class AdminServices:
    """The services of a handler of the admin port."""

    services: Services
    state: StateWatcher
    reloader: Reloader
