"""Reads the projects of the person who has logged in, so that a message can name them."""

from __future__ import annotations

from collections.abc import Iterator

from tornado_proxy.auth.unverified_token import read_json_object
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.issuers.http_fetch import Fetch, FetchError, fetch
from tornado_proxy.local.hosted import TokenSource

#: Projects that a message names, and characters of a name.
_MAX_PROJECTS, _MAX_NAME_CHARACTERS = 20, 60


async def list_projects(upstream: str, tokens: TokenSource) -> list[str]:
    """Return `ID (name)` of each project; an empty list if the server states none."""
    try:
        headers = {"Authorization": f"Bearer {(await tokens.get()).reveal()}"}
        content = read_json_object((await fetch(Fetch(f"{upstream}/accounts/projects", headers=headers))).body)
    except (RequestError, FetchError, ValueError):
        return []
    projects = content.get("projects")
    return list(_show(projects))[:_MAX_PROJECTS] if isinstance(projects, list) else []


def _show(projects: list[object]) -> Iterator[str]:
    for project in projects:
        if isinstance(project, dict) and isinstance(project.get("id"), str):
            text = f"{project['id']} ({str(project.get('name'))[:_MAX_NAME_CHARACTERS]})"
            yield "".join(character for character in text if character.isprintable())
