"""Finds the user or caller of a request to the REST API, and its project.

The path names the project; the header Meshagent-Project-Id is optional and must agree.  An unknown project and one that
the user is no member of give the same error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tornado_proxy.auth.credentials import find_token, list_stated_projects, require_project
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.auth.oauth.membership import USE_PERMISSION, list_memberships
from tornado_proxy.domain.errors import NotAllowed
from tornado_proxy.domain.identity import Caller, OAuthUser, Project
from tornado_proxy.snapshot import Snapshot

_CREDENTIAL_HEADERS = ("authorization",)

#: The (name, value) pairs of a request.
_Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ProjectMember:
    """An OAuth user in one of its projects; `may_use` is True if it may use models."""

    user: OAuthUser
    project: Project
    may_use: bool
    admin: bool

    @property
    def name(self) -> str:
        """The name of the user as a participant: its verified e-mail address, else its subject."""
        return self.user.email or self.user.subject

    def is_own_name(self, name: str) -> bool:
        """Return True if `name` is the user's verified e-mail address or its subject."""
        return name in (self.user.email, self.user.subject)

    def require_use(self) -> None:
        """Raise NotAllowed unless the user may use models."""
        if not self.may_use:
            raise NotAllowed("you may not use models in this project; ask the operator for can_use_llm_proxy")

    def require_admin(self) -> None:
        """Raise NotAllowed unless the user is an admin of the project."""
        if not self.admin:
            raise NotAllowed("only an admin of the project may do this; ask one of them")


async def verify_user(snapshot: Snapshot, headers: _Headers, now: datetime) -> VerifiedUser:
    """Return the user of a request whose credential must be an OAuth access token.

    Raises:
        NotAuthenticated: the credential is missing or invalid.
        NotAllowed: it is of another kind, such as a participant token, or its token lacks the scope.
        IdentityProviderUnavailable: the issuer must be asked and cannot be reached.
    """
    pairs, authenticator = list(headers), snapshot.authenticator
    token = find_token(pairs, _CREDENTIAL_HEADERS, opaque=authenticator.accepts_opaque_tokens)
    verified = authenticator.verify_user(token, now)
    if verified is None:
        # An invalid credential is 401, as on every other path.
        authenticator.authenticate(token, now, stated_projects=list_stated_projects(pairs))
        raise NotAllowed("this path is for people; send the OAuth access token of a login in place of this credential")
    return verified if isinstance(verified, VerifiedUser) else await verified


def find_member(snapshot: Snapshot, headers: _Headers, project_id: str, user: OAuthUser) -> ProjectMember:
    """Return the membership of `user` in the project that the path names.

    Raises:
        NotAllowed: the user is no member, the project does not exist, or a header names another one.
    """
    require_project(list_stated_projects(headers), project_id)
    project = snapshot.projects.get(project_id)
    entries = list_memberships(user, project) if project is not None else ()
    if project is None or not entries:
        raise NotAllowed(
            "you are no member of this project, or the project does not exist; ask the operator to add you"
        )
    admin = any(entry.admin for entry in entries)
    may_use = admin or any(USE_PERMISSION in entry.permissions for entry in entries)
    return ProjectMember(user, project, may_use, admin)


async def find_caller(snapshot: Snapshot, headers: _Headers, project_id: str, now: datetime) -> tuple[Caller, Project]:
    """Return the caller of any kind of credential, and its project, which the path must name.

    Raises:
        NotAuthenticated: the credential is missing or invalid.
        NotAllowed: it is for another project, or its user is no member of this one.
        IdentityProviderUnavailable: an issuer must be asked and cannot be reached.
    """
    pairs, authenticator = list(headers), snapshot.authenticator
    token = find_token(pairs, _CREDENTIAL_HEADERS, opaque=authenticator.accepts_opaque_tokens)
    stated = list_stated_projects(pairs)
    identified = authenticator.authenticate(token, now, stated_projects=stated, project_in_path=project_id)
    caller = identified if isinstance(identified, Caller) else await identified
    if caller.oauth_user is not None:
        require_project(stated, project_id)  # the token names no project, so the path does not contradict it
    if caller.project_id != project_id:
        raise NotAllowed("your token is for another project; use the id of its own project in the path")
    return caller, snapshot.projects[caller.project_id]
