"""Parsing of the parameter `project` of the operator's routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tornado_proxy.api.project_parameter import find_project_id, find_recorded_project_id
from tornado_proxy.domain.errors import BadRequest, NotFound

FIRST, SECOND, REMOVED = (f"{digit * 8}-2222-4333-8444-555555555555" for digit in "123")

#: The name of the last project has the form of an id.
NAMES = {FIRST: "twin", SECOND: "twin", "p": "other", "q": REMOVED}


@pytest.mark.parametrize("find", [find_project_id, find_recorded_project_id])
@pytest.mark.parametrize(("wanted", "found"), [(SECOND, SECOND), ("p", "p"), ("other", "p"), (REMOVED, "q")])
def test_project_is_found_by_its_id_or_name(
    find: Callable[[Mapping[str, str], str], str], wanted: str, found: str
) -> None:
    assert find(NAMES, wanted) == found


def test_removed_project_has_records_by_its_id() -> None:
    names = {FIRST: "first"}

    assert find_recorded_project_id(names, REMOVED) == REMOVED
    with pytest.raises(NotFound, match=f"no project has the id or name '{REMOVED}'"):
        find_project_id(names, REMOVED)


def test_name_of_two_projects_is_refused_with_their_ids() -> None:
    with pytest.raises(
        BadRequest, match=f"several projects have the name 'twin'; use the id of one: {FIRST}, {SECOND}"
    ):
        find_recorded_project_id(NAMES, "twin")


@pytest.mark.parametrize("wanted", ["", "Other", REMOVED.replace("3", "A"), f"{FIRST} "])
def test_unknown_name_has_no_records(wanted: str) -> None:
    with pytest.raises(NotFound, match="GET /v1/projects on the admin port lists them"):
        find_recorded_project_id(NAMES, wanted)
