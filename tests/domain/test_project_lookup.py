"""Projects by id or name."""

from __future__ import annotations

import json
import re

import pytest

from tornado_proxy.config.bundled import find_folder
from tornado_proxy.domain.project_lookup import match_projects, match_recorded_projects

NAMES = {"p": "first", "q": "twin", "r": "twin", "s": "p"}


@pytest.mark.parametrize(
    ("wanted", "found"), [("q", ["q"]), ("first", ["p"]), ("twin", ["q", "r"]), ("p", ["p"]), ("First", []), ("", [])]
)
def test_id_goes_before_names(wanted: str, found: list[str]) -> None:
    assert match_projects(NAMES, wanted) == found


@pytest.mark.parametrize(
    "text",
    [
        "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10",
        "0C9F8A5E-9a1e-4f6b-8c43-1d2a7f6f0a10",
        "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a1",
        "first",
    ],
)
def test_removed_project_is_found_by_what_the_schema_has_as_an_id(text: str) -> None:
    schema = json.loads((find_folder("schemas") / "projects.schema.json").read_text("utf-8"))
    pattern = schema["properties"]["projects"]["items"]["properties"]["id"]["pattern"]

    assert match_recorded_projects({}, text) == ([text] if re.search(pattern, text) else [])


def test_name_that_has_the_form_of_an_id_is_that_of_its_project() -> None:
    name = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"

    assert match_recorded_projects({"p": name}, name) == ["p"]
