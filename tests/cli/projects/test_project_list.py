"""`tornado-proxy project list` and `show` read the files of projects, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from tests.cli.rated_ledger import run

ACME = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
OTHER = "7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11"
PROJECTS: list[dict[str, Any]] = [
    {
        "id": ACME,
        "name": "Acme research",
        "api_keys": [
            {"id": ACME, "secret": {"env": "NOT_SET"}},
            {"id": OTHER, "secret": {"file": "missing.secret"}, "disabled": True},
        ],
        "members": [{"user": "ada@example.com", "admin": True}],
        "providers": {"openai": {"keys": [{"name": "main", "secret": {"env": "NOT_SET_EITHER"}}]}},
        "models": ["openai/*", "anthropic/claude-*"],
        "surcharge_rate": "0.10",
        "labels": {"cost_center": "4711"},
    },
    {"id": OTHER, "name": "Zoé"},
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with a folder of two files, whose secrets cannot be read."""
    folder = tmp_path / "projects"
    folder.mkdir()
    for name, project in zip(("acme", "other"), PROJECTS, strict=True):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"projects": [project]}, sort_keys=False))
    path = tmp_path / "proxy.yaml"
    path.write_text("providers: {openai: {base_url: https://x.test, api_key: {env: NOT_SET}}}\nprojects: projects\n")
    return path


def call(config: Path, *arguments: str) -> Result:
    return run("project", *arguments, "--config", config)


def test_projects_are_listed_without_their_secrets(config: Path) -> None:
    listed = call(config, "list", "--format", "json")

    assert listed.exit_code == 0, listed.stderr
    assert json.loads(listed.stdout) == [
        {
            "id": ACME,
            "name": "Acme research",
            "api_keys": 1,
            "disabled_api_keys": 1,
            "members": 1,
            "providers": ["openai"],
            "models": ["openai/*", "anthropic/claude-*"],
        },
        {
            "id": OTHER,
            "name": "Zoé",
            "api_keys": 0,
            "disabled_api_keys": 0,
            "members": 0,
            "providers": [],
            "models": None,
        },
    ]


def test_table_has_a_row_for_each_project(config: Path) -> None:
    table = call(config, "list").stdout

    (acme,) = [line for line in table.splitlines() if ACME in line]
    assert [cell.strip() for cell in acme.split("│")[1:-1]] == [
        *(ACME, "Acme research", "1", "1", "1", "openai", "openai/*, anthropic/claude-*"),
    ]


@pytest.mark.parametrize("wanted", [ACME, "Acme research"])
def test_project_is_shown_as_its_file_has_it(config: Path, wanted: str) -> None:
    shown = call(config, "show", wanted)

    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == f"# {config.parent}/projects/acme.yaml:2"
    assert yaml.safe_load(shown.stdout) == PROJECTS[0]
    assert json.loads(call(config, "show", wanted, "--format", "json").stdout) == PROJECTS[0]


def test_unknown_and_ambiguous_names_are_errors(config: Path) -> None:
    unknown = call(config, "show", "Beta")
    (config.parent / "projects" / "third.yaml").write_text(
        yaml.safe_dump({"projects": [{"id": "1c5d2f9b-7a0e-4b1c-9d53-0f7a2b8c4e21", "name": "Zoé"}]})
    )
    ambiguous = call(config, "show", "Zoé")

    assert (unknown.exit_code, ambiguous.exit_code) == (1, 1)
    assert "no project has the id or name 'Beta'; `tornado-proxy project list` shows all ids" in unknown.stderr
    assert "several projects have the id or name 'Zoé'" in ambiguous.stderr


def test_literal_secret_is_a_fault_that_does_not_show_it(config: Path) -> None:
    file = config.parent / "projects" / "acme.yaml"
    file.write_text(file.read_text().replace("env: NOT_SET_EITHER", "sk-live-0123456789"))

    for arguments in (("list",), ("show", ACME)):
        result = call(config, *arguments)
        assert result.exit_code == 1
        assert "projects[0].providers.openai.keys[0].secret: must be a reference to a secret" in result.stderr
        assert "sk-live" not in result.output
