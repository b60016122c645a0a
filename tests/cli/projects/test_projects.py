"""`tornado-proxy project create`: the entry that it adds works, and the rest of the file stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from tests.cli.rated_ledger import run
from tests.harness import ROOT
from tornado_proxy.config.loading import load_settings

COMMENTED = """\
# Ours.
projects:
- id: 0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10   # the first
  name: First
  api_keys:
  - {id: 7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11, secret: {env: FIRST_KEY}}
  models: ["openai/*"]
# The end.
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the shipped configuration."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "FIRST_KEY"):
        monkeypatch.setenv(name, "sk-0123456789abcdef0123456789abcdef")
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("secrets"))
    return tmp_path / "conf" / "proxy.yaml"


def create(config: Path, *arguments: str) -> Result:
    return run("project", "create", *arguments, "--config", config)


def test_new_project_can_be_used_at_once(config: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "team.key"

    created = create(config, "My team", "--key-file", str(key_file))
    checked = run("check", "--config", config)
    token = run("token", "mint", "--key-file", key_file, "--identity", "ada")
    inspected = run("token", "inspect", "--config", config, token.stdout.strip())

    assert created.exit_code == 0, created.stderr
    assert created.stdout == ""
    assert checked.exit_code == 0, checked.stdout
    assert "1 project with 1 API key" in checked.stdout
    assert inspected.exit_code == 0, inspected.output
    (secret,) = (config.parent / "secrets").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (secret, key_file)] == [0o600, 0o600]
    assert secret.parent.stat().st_mode & 0o777 == 0o700


def test_second_project_is_added_after_the_first(config: Path) -> None:
    first, second = create(config, "My team"), create(config, 'The "other": team')

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.startswith("ma-")
    projects = load_settings(config).projects
    assert [project.name for project in projects] == ["My team", 'The "other": team']
    # The comments of the shipped file stay.
    assert (config.parent / "projects.yaml").read_text().startswith((ROOT / "conf" / "projects.yaml").read_text()[:200])


def test_lines_and_indentation_of_the_file_stay(config: Path) -> None:
    file = config.parent / "projects.yaml"
    file.write_text(COMMENTED)

    assert create(config, "Second").exit_code == 0

    assert file.read_text().startswith(COMMENTED)
    assert [project.name for project in load_settings(config).projects] == ["First", "Second"]


def test_folder_of_projects_gets_a_file(config: Path) -> None:
    (config.parent / "projects.yaml").unlink()
    (config.parent / "teams").mkdir()
    (config.parent / "teams" / "first.yaml").write_text(COMMENTED)
    config.write_text(config.read_text().replace("projects: projects.yaml", "projects: teams"))

    assert create(config, "Second").exit_code == 0

    assert [project.name for project in load_settings(config).projects] == ["First", "Second"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("projects: [{id: x}]\n", "projects.yaml:1: projects[0]", id="faults"),
        pytest.param("projects: {\n", "invalid YAML", id="no YAML"),
    ],
)
def test_file_with_faults_is_not_changed(config: Path, text: str, message: str) -> None:
    file = config.parent / "projects.yaml"
    file.write_text(text)

    result = create(config, "Second")

    assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
    assert file.read_text() == text
    assert not (config.parent / "secrets").exists()


def test_list_in_the_configuration_itself_is_an_error(config: Path) -> None:
    config.write_text(config.read_text().replace("projects: projects.yaml", "projects: []"))

    result = create(config, "Second")

    assert (result.exit_code, "tornado-proxy key create" in result.stderr) == (1, True)
    assert yaml.safe_load((config.parent / "projects.yaml").read_text()) == {"projects": []}


def test_example_in_the_shipped_file_is_valid(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACME_KEY", "ACME_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "0123456789abcdef0123456789abcdef")
    file = config.parent / "projects.yaml"
    example = [line.removeprefix("#") for line in file.read_text().splitlines() if line.startswith("#   ")]
    file.write_text("projects:\n" + "\n".join(example) + "\n")

    (project,) = load_settings(config).projects

    assert (project.name, len(project.members), len(project.api_keys)) == ("Acme research", 2, 1)
