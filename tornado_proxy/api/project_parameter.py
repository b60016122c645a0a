"""Reads the parameter `project` of the operator's routes: the id or the name of a project.  Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.domain.project_lookup import match_projects, match_recorded_projects


def find_project_id(names: Mapping[str, str], wanted: str) -> str:
    """Return the id of a configured project.

    Args:
        names: The names of the configured projects by id.
        wanted: The id or the name of the project.

    Raises:
        NotFound: no project has the id or name.
        BadRequest: several projects have the name.
    """
    return _require_one(match_projects(names, wanted), wanted)


def find_recorded_project_id(names: Mapping[str, str], wanted: str) -> str:
    """Return the id of a project whose records are wanted; it may have been removed from the configuration.

    A name that no record has would otherwise give an empty list or a sum of 0.

    Raises:
        NotFound: it is neither an id or name of the configuration nor an id of a removed project.
        BadRequest: several projects have the name.
    """
    return _require_one(match_recorded_projects(names, wanted), wanted)


def _require_one(found: Sequence[str], wanted: str) -> str:
    if not found:
        raise NotFound(
            f"no project has the id or name {wanted[:100]!r}; GET /v1/projects on the admin port lists them",
            param="project",
        )
    if len(found) > 1:
        raise BadRequest(
            f"several projects have the name {wanted[:100]!r}; use the id of one: {', '.join(found)}", param="project"
        )
    return found[0]
