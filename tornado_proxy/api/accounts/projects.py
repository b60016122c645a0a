"""`GET /accounts/projects` and `GET /accounts/projects/{project_id}`: the projects of the user."""

from __future__ import annotations

from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.auth.oauth.membership import list_memberships
from tornado_proxy.domain.identity import Project


class ProjectsHandler(AccountsHandler):
    """The projects that the user is a member of."""

    async def get(self) -> None:
        """Respond with the projects in the order of the configuration."""
        user = (await self.identify_user()).user
        projects = self.snapshot.projects.values()
        self.respond({"projects": [_show(project) for project in projects if list_memberships(user, project)]})


class ProjectHandler(AccountsHandler):
    """One project of the user."""

    async def get(self, project_id: str) -> None:
        """Respond with the project."""
        self.respond(_show((await self.identify_member(project_id)).project))


def _show(project: Project) -> dict[str, object]:
    return {"id": project.id, "name": project.name, "owner_user_id": None, "project_key": None, "created_at": None}
