"""Decides which projects an OAuth user may use: pure functions over the members of projects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from tornado_proxy.domain.errors import BadRequest, NotAllowed
from tornado_proxy.domain.identity import Caller, Member, OAuthUser, Project

#: The permission that lets a member use models.
USE_PERMISSION = "can_use_llm_proxy"


def choose_project(stated: Sequence[str]) -> str:
    """Return the project id that a request states; an access token names none.

    Raises:
        BadRequest: The request states no project, or more than one.
    """
    if len(stated) != 1 or "," in stated[0]:
        problem = "names no project" if not stated else "names more than one project"
        raise BadRequest(
            f"a request with an OAuth access token needs one header Meshagent-Project-Id; this one {problem}",
            code="project_required",
        )
    return stated[0]


def make_caller(
    user: OAuthUser, project_id: str, projects: Mapping[str, Project], expires_at: datetime | None
) -> Caller:
    """Return the caller that `user` is in a project.

    Raises:
        NotAllowed: There is no such project, or the user is no member that may use models: the error is the same, so
            that no user learns which projects exist.
    """
    project = projects.get(project_id)
    memberships = list_memberships(user, project) if project is not None else ()
    admin = any(member.admin for member in memberships)
    if not admin and not any(USE_PERMISSION in member.permissions for member in memberships):
        raise NotAllowed(
            "you are no member of this project with permission to use models, or the project does not exist; "
            "ask the operator to add you to its members with can_use_llm_proxy"
        )
    return Caller(
        project_id=project_id,
        user=user.subject,
        issuer=user.issuer,
        admin=admin,
        credential_id=user.client_id,
        expires_at=expires_at,
        oauth_user=user,
    )


def list_memberships(user: OAuthUser, project: Project) -> tuple[Member, ...]:
    """Return the entries of `project.members` that match the user."""
    return tuple(member for member in project.members if _matches(member, user))


def keep_matching_claims(user: OAuthUser, project: Project) -> OAuthUser:
    """Return the user without the e-mail address and the groups that no entry of `project.members` names."""
    memberships = list_memberships(user, project)
    groups = frozenset(member.group for member in memberships if member.group is not None)
    by_email = any(_is_email(member.user, user.email) for member in memberships)
    return replace(user, email=user.email if by_email else None, groups=groups & user.groups)


def _matches(member: Member, user: OAuthUser) -> bool:
    # config/projects.py requires the issuer of a member if there are several: without one, there is one issuer.
    if member.issuer is not None and member.issuer != user.issuer:
        return False
    if member.group is not None:
        return member.group in user.groups
    return member.user == user.subject or _is_email(member.user, user.email)


def _is_email(entry: str | None, email: str | None) -> bool:
    """Return True if the entry is the address.  ASCII letters match in any case, others exactly."""
    if entry is None or email is None or "@" not in entry:
        return False
    if entry.isascii() and email.isascii():
        return entry.lower() == email.lower()
    return entry == email
