"""`/v1/access-keys`: creates, lists, imports, rotates and revokes access keys (docs/access_keys.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from tornado_proxy.api.access_keys import read_creation, read_import, read_rotation, show_key, show_keys, show_secret
from tornado_proxy.api.admin.base_handler import ACTOR, AdminHandler
from tornado_proxy.api.project_parameter import find_recorded_project_id
from tornado_proxy.domain.state import AccessKey
from tornado_proxy.state import access_keys


class _AccessKeyHandler(AdminHandler):
    parameters: ClassVar = {"POST": ("dry_run",), "DELETE": ("dry_run",)}

    def respond_to_change(self, action: str, key: AccessKey, document: dict[str, object], status: int = 200) -> None:
        """Log the change and respond with `document`, or in a dry run with that alone.

        Args:
            action: The kind of change.
            key: The changed key.
            document: The document of the key, perhaps with its new secret.
            status: The HTTP status.
        """
        if self.is_dry_run():
            self.respond({"dry_run": True})
            return
        self.log_change(action, key.id, new=show_key(key))
        if status == 201:
            self.set_header("Location", f"/v1/access-keys/{key.id}")
        self.respond(document, status)


class AccessKeysHandler(_AccessKeyHandler):
    """All access keys, revoked ones included."""

    parameters: ClassVar = {"GET": ("project",), "POST": ("dry_run",)}

    async def get(self) -> None:
        """Respond with the keys, oldest first; with `project` those of one project, which may have been removed."""
        wanted = self.read_parameter("project")
        names = self.services.snapshots.current.project_names
        project_id = None if wanted is None else find_recorded_project_id(names, wanted)
        keys = await self.admin.state.read(access_keys.list_keys)
        self.respond(show_keys(key for key in keys if project_id in (None, key.project_id)))

    async def post(self) -> None:
        """Create a key and respond with its secret, which is shown once."""
        projects = self.services.snapshots.current.projects
        settings = read_creation(self.request.body, projects, datetime.now(UTC))
        key, secret = await self.change_state(lambda changes: access_keys.create(changes, ACTOR, settings))
        self.respond_to_change("access key created", key, show_secret(key, secret), 201)


class AccessKeyImportHandler(_AccessKeyHandler):
    """Keys that were made elsewhere."""

    async def post(self) -> None:
        """Create a key from the SHA-256 of its secret."""
        projects = self.services.snapshots.current.projects
        settings, digest = read_import(self.request.body, projects, datetime.now(UTC))
        key = await self.change_state(lambda changes: access_keys.import_digest(changes, ACTOR, settings, digest))
        self.respond_to_change("access key imported", key, show_key(key), 201)


class AccessKeyHandler(_AccessKeyHandler):
    """One access key."""

    async def get(self, key_id: str) -> None:
        """Respond with the key."""
        self.respond(show_key(await self.admin.state.read(lambda store: access_keys.find_key(store, key_id))))

    async def delete(self, key_id: str) -> None:
        """Revoke the key."""
        key = await self.change_state(lambda changes: access_keys.revoke(changes, ACTOR, key_id))
        self.respond_to_change("access key revoked", key, show_key(key))


class AccessKeyRotationHandler(_AccessKeyHandler):
    """The rotation of an access key."""

    async def post(self, key_id: str) -> None:
        """Give the key another secret and respond with it; it is shown once."""
        grace = read_rotation(self.request.body)
        key, secret = await self.change_state(lambda changes: access_keys.rotate(changes, ACTOR, key_id, grace))
        self.respond_to_change("access key rotated", key, show_secret(key, secret))
