"""`tornado-proxy connect`, run as a person runs it: a process that becomes the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import openai
import pytest

from tests.forked_program import run_program, start_program
from tests.harness import KEY_ID, PROJECT, SECRETS, SIGNING_SECRET, running_proxy, write_config
from tornado_proxy.simulator import running_simulator

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
#: The only secret of the configuration that the command needs, and leftovers of a developer's shell.
SHELL = {
    "TEST_SIGNING_SECRET": SIGNING_SECRET,
    "TEST_OPENAI_KEY": "sk-provider",
    "ANTHROPIC_AUTH_TOKEN": "sk-ant-leftover",
    "MESHAGENT_API_KEY": "ma-signing-key",
    "OPENAI_API_KEY": "sk-leftover",
    "OPENAI_BASE_URL": "https://api.openai.com/v1",
}


def connect(config: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **SHELL, **environment}
    return run_program(
        "tornado_proxy",
        ["connect", "--config", str(config), "--project", PROJECT, *arguments],
        {name: value for name, value in inherited.items() if value},
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, "http://127.0.0.1:1", listen={"host": "0.0.0.0", "port": 8080})  # noqa: S104  # as an operator writes it


def show_environment(config: Path, *options: str, **environment: str) -> Any:
    shown = connect(config, "--room", "lab", *options, "--", sys.executable, "-c", SHOW, **environment)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_command_gets_exactly_the_documented_environment(config: Path) -> None:
    shown = show_environment(config, "--identity", "ada")

    token = shown["MESHAGENT_TOKEN"]
    assert {name: value for name, value in shown.items() if name not in {"PATH", "HOME", "LC_CTYPE"}} == {
        "MESHAGENT_API_URL": "http://127.0.0.1:8080",
        "MESHAGENT_PROJECT_ID": PROJECT,
        "MESHAGENT_ROOM": "lab",
        "MESHAGENT_TOKEN": token,
        "OPENAI_API_KEY": token,
        "OPENAI_BASE_URL": "http://127.0.0.1:8080/openai/v1",
        "ANTHROPIC_API_KEY": token,
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:8080/anthropic",
    }


def test_token_names_the_participant_and_lives_a_day(config: Path) -> None:
    token = show_environment(config, "--identity", "ada")["MESHAGENT_TOKEN"]

    claims = jwt.decode(token, SIGNING_SECRET, algorithms=["HS256"])
    left_s = (
        claims.pop("exp")
        - jwt.decode(
            show_environment(config, "--expires-in", "1h")["MESHAGENT_TOKEN"], SIGNING_SECRET, algorithms=["HS256"]
        )["exp"]
    )
    assert claims == {
        "name": "ada",
        "grants": [
            {"name": "room", "scope": "lab"},
            {"name": "role", "scope": "agent"},
            {"name": "api", "scope": {"llm": {}}},
        ],
        "sub": PROJECT,
        "kid": KEY_ID,
        "version": "0.56.0",
    }
    assert 23 * 3600 - 60 < left_s <= 23 * 3600


def test_env_option_wins_over_set_and_removed_variables(config: Path) -> None:
    options = [f"--env={pair}" for pair in ("OPENAI_BASE_URL=http://other/v1", "ANTHROPIC_AUTH_TOKEN=own", "EMPTY=")]

    shown = show_environment(config, *options)

    assert (shown["OPENAI_BASE_URL"], shown["ANTHROPIC_AUTH_TOKEN"], shown["EMPTY"]) == ("http://other/v1", "own", "")


def test_public_url_is_the_url_of_the_server(tmp_path: Path) -> None:
    listen = {"host": "127.0.0.1", "public_url": "https://llm.example.com/"}
    config = write_config(tmp_path, "http://127.0.0.1:1", listen=listen)

    shown = show_environment(config)

    assert shown["MESHAGENT_API_URL"] == "https://llm.example.com"
    assert shown["ANTHROPIC_BASE_URL"] == "https://llm.example.com/anthropic"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        pytest.param(("sh", "-c", "exit 7"), 7, id="exit status of the command"),
        pytest.param(("sh", "-c", "kill -TERM $$"), -signal.SIGTERM, id="end by a signal"),
        pytest.param(("sh", "-c", "kill -PIPE $$"), -signal.SIGPIPE, id="SIGPIPE is not ignored"),
        pytest.param(("no-such-command-of-ours",), 127, id="command not found"),
        pytest.param(("/etc/passwd",), 126, id="command cannot be run"),
    ],
)
def test_exit_status_is_that_of_the_command(config: Path, command: tuple[str, ...], status: int) -> None:
    assert connect(config, "--room", "lab", "--", *command).returncode == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(config: Path, number: signal.Signals) -> None:
    handler = (
        f"import signal, sys; signal.signal({int(number)}, lambda *_: sys.exit(5));"
        "print('up', flush=True); signal.pause()"
    )
    arguments = ["--config", str(config), "--project", PROJECT, "--room", "lab", "--", sys.executable, "-c", handler]
    with start_program("tornado_proxy", ["connect", *arguments], {**os.environ, **SECRETS}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(30) == 5


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "message"),
    [
        pytest.param(("--room", " ", "--", "true"), {}, 2, "must not be blank", id="blank room"),
        pytest.param(
            ("--room", "lab", "--env", "=x", "--", "true"), {}, 2, "must be NAME=VALUE", id="--env without name"
        ),
        pytest.param(("--room", "lab"), {}, 2, "Missing argument", id="no command"),
        pytest.param(("--room", "a\nb", "--", "true"), {}, 1, "control character", id="line end in the room"),
        pytest.param(
            ("--room", "lab", "--", "true"),
            {"TEST_SIGNING_SECRET": ""},
            1,
            "environment variable TEST_SIGNING_SECRET is not set",
            id="no signing secret",
        ),
    ],
)
def test_refusals_say_what_is_wrong(
    config: Path, arguments: tuple[str, ...], environment: dict[str, str], status: int, message: str
) -> None:
    refused = connect(config, *arguments, **environment)

    assert (refused.returncode, refused.stdout) == (status, "")
    assert message in refused.stderr


def test_project_without_a_usable_key_is_refused(tmp_path: Path) -> None:
    key = {"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}, "disabled": True}
    config = write_config(tmp_path, "http://127.0.0.1:1", projects=[{"id": PROJECT, "name": "a", "api_keys": [key]}])

    refused = connect(config, "--room", "lab", "--", "true")

    assert refused.returncode == 1
    assert "has no API key that is not disabled" in refused.stderr


def test_official_sdk_in_the_command_reaches_the_proxy_as_the_participant(tmp_path: Path) -> None:
    with running_simulator() as upstream, running_proxy(tmp_path, upstream) as proxy:
        config = tmp_path / "proxy.yaml"
        config.write_text(config.read_text().replace("port: 0", f"port: {proxy.base_url.rpartition(':')[2]}", 1))
        shown = show_environment(config, "--identity", "ada")
        with openai.OpenAI(base_url=shown["OPENAI_BASE_URL"], api_key=shown["OPENAI_API_KEY"]) as client:
            client.responses.create(model="gpt-4o-mini", input="hi")

        (record,) = proxy.read_records(count=1)
        assert (record["participant"], record["room"], record["project_id"]) == ("ada", "lab", PROJECT)
