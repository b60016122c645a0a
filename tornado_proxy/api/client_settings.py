"""`/accounts/projects/{project_id}/settings/{provider}` on the client port: the settings of a project, for its admins.

The published MeshAgent clients use it.  Its admins are OAuth users; participant tokens and access keys get 403.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Coroutine, Mapping

from tornado.iostream import StreamClosedError

from tornado_proxy.api.audit import ChangeSource, log_change
from tornado_proxy.api.project_handler import ProjectHandler
from tornado_proxy.api.provider_settings import ChangeRequest, SettingsResource, ShownChange, find_resource
from tornado_proxy.domain.errors import BadRequest, NotAllowed, RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER
from tornado_proxy.gateway.services import Services
from tornado_proxy.state.guarded_changes import Changes, GuardedChanges
from tornado_proxy.state.watcher import StateWatcher

#: The route; its groups are the project id and the provider.
SETTINGS_PATH = r"/accounts/projects/([^/]+)/settings/([^/]+)"

_Change = Callable[[SettingsResource, Changes, ChangeRequest], ShownChange]


class ClientSettingsHandler(ProjectHandler):
    """The settings of one project for one provider.

    Waits for the state's thread and for the identity provider, both of which limit their time.
    """

    path_template = "/accounts/projects/{id}/settings/{provider}"
    methods = ("GET", "HEAD", "PUT", "DELETE")

    def initialize(self, services: Services, state: StateWatcher | None = None) -> None:
        """Keep the services."""
        super().initialize(services)
        assert state is not None, "the route has it"
        self._state = state

    async def get(self, project_id: str, provider: str) -> None:
        """Respond with the settings, with a masked key."""
        await self._run(self._get(project_id, provider))

    async def put(self, project_id: str, provider: str) -> None:
        """Replace the settings."""
        await self._run(self._change(project_id, provider, "provider settings set", SettingsResource.put))

    async def delete(self, project_id: str, provider: str) -> None:
        """Remove the settings: the project uses the key of its file, or the server's."""
        await self._run(self._change(project_id, provider, "provider settings deleted", SettingsResource.delete))

    head = get

    async def _run(self, response: Coroutine[None, None, None]) -> None:
        try:
            await response
        except RequestError as error:
            await self.reject(error)

    async def _get(self, project_id: str, provider: str) -> None:
        _, resource = await self._find(project_id, provider)
        shown = await self._state.read(resource.read)
        self.set_header("ETag", shown.etag)
        await self._respond(shown.document)

    async def _change(self, project_id: str, provider: str, action: str, make_change: _Change) -> None:
        caller, resource = await self._find(project_id, provider)
        headers, dry_run = self.request.headers, self._is_dry_run()
        source = ChangeSource(self.request_id, f"user {caller.user} of {caller.issuer}", self.request.remote_ip)
        request = ChangeRequest(source.actor, self.request.body, headers.get("If-Match"), headers.get("If-None-Match"))
        change = await self._state.change(
            lambda store: make_change(resource, GuardedChanges(store, dry_run=dry_run), request)
        )
        if dry_run:
            await self._respond({"ok": True, "dry_run": True})
            return
        log_change(source, action, "/".join(resource.subject), (change.old, change.new))
        if change.etag is not None:
            self.set_header("ETag", change.etag)
        await self._respond({"ok": True})

    async def _find(self, project_id: str, provider: str) -> tuple[Caller, SettingsResource]:
        """Return the caller and the settings.

        Raises:
            NotAuthenticated: the credential is missing or invalid.
            NotAllowed: the caller is no admin of the project.
            NotFound: there is no such provider.
        """
        caller, project = await self.authenticate(project_id)
        if caller.user is None or not caller.admin:
            raise NotAllowed("only admins of the project, with an OAuth access token, may use its settings")
        return caller, find_resource(self.services.snapshots.current, (project.id, provider))

    async def _respond(self, document: Mapping[str, object]) -> None:
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        with contextlib.suppress(StreamClosedError):  # the client has disconnected
            await self.finish(json.dumps(document) + "\n")

    def _is_dry_run(self) -> bool:
        arguments = self.request.query_arguments
        value = arguments.get("dry_run", [b"0"])
        if value not in ([b"0"], [b"1"]) or set(arguments) - {"dry_run"}:
            raise BadRequest("the only parameter is dry_run, with 0 or 1", param="dry_run")
        return value == [b"1"]
