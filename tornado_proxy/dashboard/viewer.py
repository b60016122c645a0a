"""Who looks at the pages: the operator, or a caller in one of its projects.  Pure.

Each query of a page is made here from the viewer, so that no parameter of a URL can widen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tornado_proxy.api.usage_query import UsageRequest, read_operator_request, read_usage_request
from tornado_proxy.auth.oauth.membership import list_memberships
from tornado_proxy.domain.errors import BadRequest, NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.state.dashboard_session_table import Identity, OperatorIdentity, ProjectIdentity, UserIdentity

#: The asker of the operator's queries; see UsageQuery.
_OPERATOR_ASKER = "admin"


@dataclass(frozen=True, slots=True)
class Viewer:
    """The viewer of a page.

    Attributes:
        caller: Whose usage is shown; None for the operator, who sees all projects.
        project: The project that is shown; None for the operator.
        choices: The projects that the viewer can choose from, for the operator all of them.
    """

    caller: Caller | None = None
    project: Project | None = None
    choices: tuple[Project, ...] = ()

    @property
    def is_operator(self) -> bool:
        """True for the operator."""
        return self.caller is None

    @property
    def sees_project(self) -> bool:
        """True if the viewer sees all callers of the project, or all projects."""
        return self.caller is None or self.caller.admin

    @property
    def title(self) -> str:
        """The text that says whose usage is shown."""
        if self.caller is None:
            return "all projects"
        assert self.project is not None, "only the operator has no project"
        if self.caller.admin:
            return self.project.name
        return f"{self.caller.participant or self.caller.user} in {self.project.name}"

    @property
    def project_parameter(self) -> str | None:
        """The project that each URL of the pages names; None if the viewer has only one, or is the operator."""
        return self.project.id if self.project is not None and len(self.choices) > 1 else None

    @property
    def project_names(self) -> dict[str, str]:
        """The names of the projects by id."""
        return {choice.id: choice.name for choice in self.choices}

    @property
    def asker(self) -> str:
        """The share of the ledger's reader that the viewer's queries use; that of the usage API."""
        caller = self.caller
        if caller is None:
            return _OPERATOR_ASKER
        return f"{caller.project_id} {caller.participant!r} {caller.user!r} {caller.issuer!r}"

    def may_see(self, caller: Caller) -> bool:
        """Return True if the viewer may see requests of `caller`."""
        own = self.caller
        if own is None:
            return True
        if caller.project_id != own.project_id:
            return False
        return own.admin or (caller.participant, caller.user, caller.issuer) == (own.participant, own.user, own.issuer)

    def sees(self, project_id: str) -> bool:
        """Return True if the viewer sees all callers of that project."""
        own = self.caller
        return own is None or (own.admin and own.project_id == project_id)

    def read_usage(self, parameters: Mapping[str, str]) -> UsageRequest:
        """Return the query of the usage API with these parameters, limited to the requests that the viewer may see.

        Raises:
            BadRequest: a parameter is unknown or malformed.
            NotFound: the operator's parameter `project` names no project.
            NotAllowed: a parameter names another caller.
        """
        arguments = {name: [value] for name, value in parameters.items()}
        if self.caller is None or self.project is None:
            return read_operator_request(arguments, "", self.project_names)
        return read_usage_request(arguments, "", self.caller, self.project)

    def select(self, parameters: Mapping[str, str]) -> UsageFilter:
        """Return the filter of the records with these parameters, limited to the requests that the viewer may see.

        Raises:
            BadRequest: a parameter is unknown, malformed, or selects no whole records.
            NotFound: the operator's parameter `project` names no project.
            NotAllowed: a parameter names another caller.
        """
        for name in ("type", "annotations"):
            if name in parameters:
                raise BadRequest(f"{name} does not select requests here; omit it", param=name)
        query = self.read_usage(parameters).query
        return replace(query.which, model=query.model)

    def select_request(self, **members: str) -> UsageFilter:
        """Return the filter of one request of the viewer; `members` are those of UsageFilter."""
        return replace(self.select({}), **members)


def find_viewer(identity: Identity, projects: Mapping[str, Project], chosen: str | None) -> Viewer:
    """Return the viewer of a session.

    Args:
        identity: The identity of the session.
        projects: The configured projects by id.
        chosen: The id of the project that the URL names, None if it names none.

    Raises:
        NotAllowed: the viewer may not see that project.
        NotAuthenticated: the project of the session is gone, or its user is a member of none.
    """
    match identity:
        case OperatorIdentity():
            return Viewer(choices=tuple(projects.values()))
        case ProjectIdentity():
            return _choose([_make_link_caller(identity)], projects, chosen)
        case UserIdentity():
            return _choose(_list_callers(identity, projects), projects, chosen)


def _make_link_caller(identity: ProjectIdentity) -> Caller:
    everyone = identity.participant is None and identity.user is None
    return Caller(identity.project_id, identity.participant, identity.user, issuer=identity.issuer, admin=everyone)


def _list_callers(identity: UserIdentity, projects: Mapping[str, Project]) -> list[Caller]:
    """Return the caller that a user is in each of its projects, as today's configuration states it."""
    user = identity.oauth_user
    entries = {project.id: list_memberships(user, project) for project in projects.values()}
    return [
        Caller(project_id, user=user.subject, issuer=user.issuer, admin=any(entry.admin for entry in own))
        for project_id, own in entries.items()
        if own
    ]


def _choose(callers: list[Caller], projects: Mapping[str, Project], chosen: str | None) -> Viewer:
    known = [caller for caller in callers if caller.project_id in projects]
    if not known:
        raise NotAuthenticated("you are a member of no project here; ask the operator to add you")
    caller = next((caller for caller in known if chosen in (None, caller.project_id)), None)
    if caller is None:
        raise NotAllowed("you are no member of this project, or it does not exist; choose one of your own")
    return Viewer(caller, projects[caller.project_id], tuple(projects[other.project_id] for other in known))
