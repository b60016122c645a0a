"""`POST /reload`: reloads the configuration of every process of the ledger."""

from __future__ import annotations

from typing import ClassVar

from tornado_proxy.api.admin.base_handler import ACTOR, AdminHandler
from tornado_proxy.domain.errors import ConfigError, InvalidConfiguration, LedgerUnavailable


class ReloadHandler(AdminHandler):
    """A reload, or with `dry_run=1` a check of the files."""

    parameters: ClassVar = {"POST": ("dry_run",)}

    async def post(self) -> None:
        """Reload and respond with the generation of this process, and with the changes.

        The other processes reload within two seconds.  Invalid files stop this one, so they are not told.
        """
        dry_run = self.is_dry_run()
        try:
            changes = await (self.admin.reloader.check_reload() if dry_run else self.admin.reloader.reload())
        except ConfigError as error:
            raise InvalidConfiguration(error) from None
        generation = self.services.snapshots.current.generation
        if not dry_run:
            self.log_change(
                "configuration reloaded", "configuration", new={"generation": generation, "changes": changes}
            )
            await self._tell_others()
        self.respond({"generation": generation, "dry_run": dry_run, "changes": changes})

    async def _tell_others(self) -> None:
        try:
            await self.admin.reloader.request_reload_of_others(ACTOR)
        except LedgerUnavailable as error:
            raise LedgerUnavailable(
                f"this process has reloaded; the others were not told, send SIGHUP to them ({error.message})"
            ) from None
