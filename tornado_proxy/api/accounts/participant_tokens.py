"""Participant tokens for OAuth users.

POST /accounts/projects/{project_id}/participant-tokens     for the user itself; an admin, for any participant
POST /accounts/projects/{project_id}/rooms/{room}/connect   for one room
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import quote

from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.api.accounts.token_request import ConnectRequest, TokenRequest, make_room_spec, make_token_spec
from tornado_proxy.auth import participant
from tornado_proxy.auth.token_spec import TokenSpec
from tornado_proxy.domain.errors import NoApiKey
from tornado_proxy.domain.identity import Project
from tornado_proxy.gateway.http.public_url import own_root

#: How long a token is valid.
TOKEN_LIFETIME = timedelta(hours=24)


class ParticipantTokensHandler(AccountsHandler):
    """A new participant token."""

    methods: ClassVar[tuple[str, ...]] = ("POST",)

    async def post(self, project_id: str) -> None:
        """Respond with the token."""
        member = await self.identify_member(project_id)
        member.require_use()
        spec = make_token_spec(self.read_body(TokenRequest), member)
        self.respond({"token": _mint(spec, member.project)})


class RoomConnectHandler(AccountsHandler):
    """A connection to a room: a participant token, with its room."""

    methods: ClassVar[tuple[str, ...]] = ("POST",)

    async def post(self, project_id: str, room: str) -> None:
        """Respond with the token and the URL that the room would have here."""
        member = await self.identify_member(project_id)
        member.require_use()
        spec = make_room_spec(self.read_body(ConnectRequest), room, member)
        root = own_root(self.incoming, self.snapshot.settings.public)
        self.respond(
            {
                "jwt": _mint(spec, member.project),
                "room_name": room,
                "project_id": member.project.id,
                # Clients require it.  The proxy serves no rooms: a connection to it is 404.
                "room_url": f"ws{root.removeprefix('http')}/rooms/{quote(room, safe='')}",
            }
        )


def _mint(spec: TokenSpec, project: Project) -> str:
    """Return a token that is signed with the first enabled API key of the project.

    Raises:
        NoApiKey: the project has none.
    """
    key = next((key for key in project.api_keys if not key.disabled), None)
    if key is None:
        raise NoApiKey(f"project {project.name} has no API key to sign tokens with; ask the operator for one")
    return participant.mint(key, spec.identity, spec.grants(), datetime.now(UTC) + TOKEN_LIFETIME)
