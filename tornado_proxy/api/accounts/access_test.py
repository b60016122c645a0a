"""`POST /accounts/projects/{project_id}/access:test`: whether the user has a role in the project."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.api.accounts.callers import ProjectMember
from tornado_proxy.auth.oauth.membership import USE_PERMISSION
from tornado_proxy.domain.errors import NotAllowed

#: Roles of whoever may use models.  Rooms are not kept here, so that each of them can be connected to.
_USE_ROLES = frozenset({USE_PERMISSION, "llm_proxy_user", "room_creator"})

_OWN_SUBJECT = "me"


class _Entity(msgspec.Struct):
    type: str
    id: str | None = None


class _Question(msgspec.Struct):
    subject: _Entity
    resource: _Entity
    relation: str


class AccessTestHandler(AccountsHandler):
    """One question about the user's own access."""

    methods: ClassVar[tuple[str, ...]] = ("POST",)

    async def post(self, project_id: str) -> None:
        """Respond with `{"allowed": true}` or false; false for resources and roles that are not known here."""
        member = await self.identify_member(project_id)
        question = self.read_body(_Question)
        subject, resource = question.subject, question.resource
        if subject.type != "user" or subject.id not in (_OWN_SUBJECT, member.user.subject):
            raise NotAllowed('you can test your own access only; send the subject {"type": "user", "id": "me"}')
        own_project = (resource.type, resource.id) == ("project", member.project.id)
        self.respond({"allowed": own_project and _has_role(member, question.relation)})


def _has_role(member: ProjectMember, role: str) -> bool:
    if role in _USE_ROLES:
        return member.may_use
    return member.admin if role == "admin" else role == "member"
