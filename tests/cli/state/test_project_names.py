"""Commands that take a project by its id or its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.rated_ledger import run
from tests.harness import OTHER_PROJECT, PROJECT, write_config

_REMOVED_PROJECT = "11111111-2222-4333-8444-555555555555"


def make_projects(*names: str) -> list[dict[str, Any]]:
    """Return projects with these names and a budget."""
    ids = (PROJECT, OTHER_PROJECT, _REMOVED_PROJECT)
    budgets = [{"period": "month", "usd": "5"}]
    return [{"id": ids[index], "name": name, "budgets": budgets} for index, name in enumerate(names)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with two projects and the ledger that it names."""
    path = write_config(tmp_path, "http://127.0.0.1:9", projects=make_projects("first", "Acme research"))
    assert run_command(path, "stop", "--list").exit_code == 0  # makes the ledger
    return path


def run_command(config: Path, *arguments: str) -> Result:
    return run(*arguments, "--config", config)


@pytest.mark.parametrize("project", ["Acme research", OTHER_PROJECT])
def test_project_is_named_by_its_id_or_its_name(config: Path, project: str) -> None:
    key = run_command(config, "access-key", "create", "ci", "--project", project, "--format", "json")
    assert json.loads(key.stdout)["project_id"] == OTHER_PROJECT
    assert OTHER_PROJECT in run_command(config, "access-key", "list", "--project", project).stdout
    changed = run_command(config, "budget", "set", project, "--period", "month", "--usd", "7", "--format", "json")
    assert [(row["project"], row["limit"]) for row in json.loads(changed.stdout)["budgets"]] == [(OTHER_PROJECT, "7")]
    shown = run_command(config, "budget", "show", project, "--format", "json")
    assert [row["project"] for row in json.loads(shown.stdout)["budgets"]] == [OTHER_PROJECT]
    assert f"stopped project {OTHER_PROJECT} as" in run_command(config, "stop", "--project", project).stderr
    assert run_command(config, "resume", "--project", project).exit_code == 0
    assert run_command(config, "usage", "--project", project).exit_code == 0
    assert run_command(config, "dashboard", "--project", project, "--url", "http://127.0.0.1").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("usage", "--project", "acme"),
        ("recompute", "--since", "1d", "--dry-run", "--project", "acme"),
        ("access-key", "list", "--project", "acme"),
        ("stop", "--list", "--project", "acme"),
        ("resume", "--project", "acme"),
    ],
)
def test_command_for_an_unknown_project_is_refused(config: Path, arguments: tuple[str, ...]) -> None:
    result = run_command(config, *arguments)

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: no project has the id or name 'acme'; `tornado-proxy project list` shows all ids\n"
    )


def test_removed_project_has_reports_by_its_id(config: Path) -> None:
    assert run_command(config, "usage", "--project", _REMOVED_PROJECT).exit_code == 0


def test_name_of_two_projects_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", projects=make_projects("twin", "twin"))

    result = run_command(config, "stop", "--project", "twin")

    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: several projects have the name 'twin'; use the id of one: {PROJECT}, {OTHER_PROJECT}\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("usage", "--since", "2026-11-02", "--until", "2026-11-01"),
        ("usage", "--since", "2026-11-02", "--until", "2026-11-02"),
        ("recompute", "--dry-run", "--since", "1d", "--until", "2d"),
        ("ledger", "verify", "--since", "2026-11-02", "--until", "2026-11-01"),
    ],
)
def test_times_without_time_between_them_are_refused(config: Path, arguments: tuple[str, ...]) -> None:
    result = run_command(config, *arguments)

    assert result.exit_code == 2
    assert "is not before --until" in result.stderr


@pytest.mark.parametrize(
    ("until", "ends"),
    [
        ("2999-12-01", "2999-12-01T00:00:00Z"),
        ("2999-12-01T10:30:00", "2999-12-01T10:30:00Z"),
        ("2999-12-01T10:30:00+02:00", "2999-12-01T08:30:00Z"),
    ],
)
def test_end_of_a_change_is_a_day_or_a_time_in_utc(config: Path, until: str, ends: str) -> None:
    lifted = run_command(config, "budget", "lift", "first", "--period", "month", "--until", until, "--format", "json")

    (row,) = json.loads(lifted.stdout)["budgets"]
    assert row["until"] == ends
