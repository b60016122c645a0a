"""Finds projects by the id or the name that an operator states, for commands, the admin port and the dashboard."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: As for `id` in schemas/projects.schema.json.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def match_projects(names: Mapping[str, str], wanted: str) -> list[str]:
    """Return the ids of the projects that `wanted` names: the one that has it as its id, else all with that name.

    Args:
        names: The names of the configured projects by id.
        wanted: An id or a name.
    """
    return [wanted] if wanted in names else [project_id for project_id, name in names.items() if name == wanted]


def match_recorded_projects(names: Mapping[str, str], wanted: str) -> list[str]:
    """Return the ids of match_projects(), else `wanted` if a project that was removed can have had this id."""
    return match_projects(names, wanted) or ([wanted] if _ID.fullmatch(wanted) else [])
