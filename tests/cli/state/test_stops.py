"""`tornado-proxy stop` and `resume`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.rated_ledger import run
from tests.harness import PROJECT, write_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration whose secrets are not set: the commands need none of them."""
    return write_config(tmp_path, "http://127.0.0.1:9")


def run_command(config: Path, *arguments: str) -> Result:
    return run(*arguments, "--config", config)


def test_stop_is_listed_until_it_is_resumed(config: Path) -> None:
    stopped = run_command(config, "stop", "--project", PROJECT, "--participant", "ada", "--reason", "runaway")
    assert stopped.exit_code == 0, stopped.stderr
    assert stopped.stderr.startswith(f"stopped participant ada of project {PROJECT} as stop_")

    (listed,) = json.loads(run_command(config, "stop", "--list", "--format", "json").stdout)["stops"]
    assert (listed["project_id"], listed["participant"], listed["agent_session"]) == (PROJECT, "ada", None)
    assert listed["reason"] == "runaway"
    assert listed["actor"].startswith("cli:")
    assert "runaway" in run_command(config, "stop", "--list").stdout

    assert run_command(config, "resume", "--participant", "ada").exit_code == 1  # another stop
    resumed = run_command(config, "resume", "--project", PROJECT, "--participant", "ada")
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(run_command(config, "stop", "--list", "--format", "json").stdout) == {"stops": []}


def test_stop_is_resumed_by_its_id(config: Path) -> None:
    made = json.loads(run_command(config, "stop", "--agent-session", "s1", "--format", "json").stdout)
    assert run_command(config, "resume", made["id"]).exit_code == 0
    again = run_command(config, "resume", made["id"])
    assert (again.exit_code, again.stderr) == (1, f"Error: there is no stop '{made['id']}'; it may have been lifted\n")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("stop",), 1, "a stop needs a project, a participant or an agent session"),
        (("stop", "--project", "another"), 1, "no project has the id or name 'another'"),
        (("stop", "--project", PROJECT.replace("0", "1")), 1, "is no configured project"),
        (("resume",), 2, "name either the id of a stop"),
        (("resume", "stop_1", "--participant", "ada"), 2, "name either the id of a stop"),
        (("resume", "--participant", "ada"), 1, "participant ada is not stopped"),
    ],
)
def test_faulty_command_says_what_to_do(arguments: tuple[str, ...], status: int, message: str, config: Path) -> None:
    result = run_command(config, *arguments)
    assert result.exit_code == status
    assert message in result.stderr
