"""`/v1/projects/{project_id}/settings/{provider}`: the provider key and base URL of a project."""

from __future__ import annotations

from typing import ClassVar

from tornado_proxy.api.admin.base_handler import ACTOR, AdminHandler
from tornado_proxy.api.provider_settings import ChangeRequest, SettingsResource, ShownChange, find_resource


class ProviderSettingsHandler(AdminHandler):
    """The settings of one project for one provider."""

    parameters: ClassVar = {"PUT": ("dry_run",), "DELETE": ("dry_run",)}

    async def get(self, project_id: str, provider: str) -> None:
        """Respond with the settings, with a masked key."""
        shown = await self.admin.state.read(self._find(project_id, provider).read)
        self.set_header("ETag", shown.etag)
        self.respond(shown.document)

    async def put(self, project_id: str, provider: str) -> None:
        """Replace the settings."""
        resource, request = self._find(project_id, provider), self._read_change()
        change = await self.change_state(lambda changes: resource.put(changes, request))
        self._respond_to_change("provider settings set", resource, change)

    async def delete(self, project_id: str, provider: str) -> None:
        """Remove the settings: the project uses the key of its file, or the server's."""
        resource, request = self._find(project_id, provider), self._read_change()
        change = await self.change_state(lambda changes: resource.delete(changes, request))
        self._respond_to_change("provider settings deleted", resource, change)

    def _find(self, project_id: str, provider: str) -> SettingsResource:
        return find_resource(self.services.snapshots.current, (project_id, provider))

    def _read_change(self) -> ChangeRequest:
        headers = self.request.headers
        return ChangeRequest(ACTOR, self.request.body, headers.get("If-Match"), headers.get("If-None-Match"))

    def _respond_to_change(self, action: str, resource: SettingsResource, change: ShownChange) -> None:
        if self.is_dry_run():
            self.respond({"ok": True, "dry_run": True})
            return
        self.log_change(action, "/".join(resource.subject), old=change.old, new=change.new)
        if change.etag is not None:
            self.set_header("ETag", change.etag)
        self.respond({"ok": True})
