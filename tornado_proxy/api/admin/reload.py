"""`POST /reload`: reloads the configuration of every process of the ledger."""

from __future__ import annotations

from typing import ClassVar

from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.domain.errors import ConfigError, InvalidConfiguration


class ReloadHandler(AdminHandler):
    """A reload, or with `dry_run=1` a check of the files."""

    parameters: ClassVar = {"POST": ("dry_run",)}

    async def post(self) -> None:
        """Reload and respond with the generation of this process, and with what has changed."""
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
        self.respond({"generation": generation, "dry_run": dry_run, "changes": changes})
