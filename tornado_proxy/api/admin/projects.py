"""`GET /v1/projects` and `GET /v1/projects/{project_id}`: the projects in use, with masked secrets."""

from __future__ import annotations

from tornado_proxy.api.admin.base_handler import AdminHandler
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.domain.identity import Member, Project, ProjectProvider
from tornado_proxy.domain.masking import MASK, mask


class ProjectsHandler(AdminHandler):
    """All projects."""

    def get(self) -> None:
        """Respond with the projects in the order of the configuration."""
        projects = self.services.snapshots.current.projects.values()
        self.respond({"projects": [show_project(project) for project in projects]})


class ProjectHandler(AdminHandler):
    """One project."""

    def get(self, project_id: str) -> None:
        """Respond with the project."""
        project = self.services.snapshots.current.projects.get(project_id)
        if project is None:
            raise NotFound("there is no such project; GET /v1/projects lists them")
        self.respond(show_project(project))


def show_project(project: Project) -> dict[str, object]:
    """Return the document of a project, with the members of its entry in a file of projects."""
    return {
        "id": project.id,
        "name": project.name,
        # Nothing of a signing secret: no one compares it with a list of a provider.
        "api_keys": [{"id": key.id, "secret": MASK, "disabled": key.disabled} for key in project.api_keys],
        "members": [_show_member(member) for member in project.members],
        "providers": {name: _show_provider(provider) for name, provider in project.providers.items()},
        "models": None if project.models.patterns is None else list(project.models.patterns),
        "surcharge_rate": None if project.surcharge_rate is None else f"{project.surcharge_rate:f}",
        "on_client_disconnect": project.on_client_disconnect,
        "labels": dict(project.labels),
        "allowed_objects": sorted(project.allowed_objects),
    }


def _show_member(member: Member) -> dict[str, object]:
    return {
        "user": member.user,
        "group": member.group,
        "issuer": member.issuer,
        "permissions": sorted(member.permissions),
        "admin": member.admin,
    }


def _show_provider(provider: ProjectProvider) -> dict[str, object]:
    return {
        "keys": [
            {"name": key.name, "secret": mask(key.secret), "provider_ids": dict(key.provider_ids)}
            for key in provider.keys
        ],
        "base_url": provider.base_url,
        "region": provider.region,
    }
