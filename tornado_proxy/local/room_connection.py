"""Requests a participant token from the server, for a person who has logged in."""

from __future__ import annotations

from urllib.parse import quote

from tornado_proxy.auth.unverified_token import read_json_object
from tornado_proxy.domain.identity import Secret
from tornado_proxy.issuers.http_fetch import Fetch, FetchError, fetch
from tornado_proxy.local.session.issuer import LoginError

#: Characters of the server's own message that are shown.
_MAX_MESSAGE_CHARACTERS = 300


async def request_participant_token(upstream: str, access_token: Secret, project_id: str, room: str) -> str:
    """Return a token of a project and room, made by the server for the user of the access token.

    Raises:
        LoginError: the server refuses.
        FetchError: it cannot be reached.
    """
    path = f"/accounts/projects/{quote(project_id, safe='')}/rooms/{quote(room, safe='')}/connect"
    headers = {"Authorization": f"Bearer {access_token.reveal()}", "Content-Type": "application/json"}
    try:
        content = read_json_object((await fetch(Fetch(upstream + path, "{}", headers))).body)
    except FetchError as error:
        if error.status is None or error.status >= 500:
            raise
        raise LoginError(f"{upstream} gives no token for the room: {_read_message(error)}") from None
    except ValueError:
        content = {}
    token = content.get("jwt")
    if not isinstance(token, str):
        raise LoginError(f"{upstream} returned no token; check the URL of the server")
    return token


def _read_message(error: FetchError) -> str:
    """Return the message in the body of an error response, else its status."""
    try:
        content = read_json_object(error.body)
    except ValueError:
        return str(error)
    described = content.get("error")
    message = described.get("message") if isinstance(described, dict) else described
    text = message if isinstance(message, str) else str(error)
    return "".join(character for character in text if character.isprintable())[:_MAX_MESSAGE_CHARACTERS]
