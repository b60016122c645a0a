"""`env` and `launch` find the running local proxy; tools get it without a change of their files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import mint
from tests.local.local_proxy import LocalProxy, running_local
from tests.local.machine import Machine
from tornado_proxy.local.shells import SHELLS

UPSTREAM = "http://127.0.0.1:1"

#: A tool that prints its arguments and variables.
TOOL = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv[1:], dict(os.environ)]))
sys.exit(7)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProxy]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    with running_local(machine, "--upstream", UPSTREAM, MESHAGENT_TOKEN=mint()) as running:
        yield running


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A PATH with the tools."""
    for name in ("codex", "claude"):
        (tmp_path / name).write_text(TOOL)
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def launch(machine: Machine, *arguments: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    leftovers = {"ANTHROPIC_AUTH_TOKEN": "x", "ANTHROPIC_API_KEY": "sk-ant", "MESHAGENT_TOKEN": mint()}
    done = machine.run("launch", *arguments, **{**leftovers, **environment})
    assert done.returncode == 7, done.stderr
    options, variables = json.loads(done.stdout)
    assert "ANTHROPIC_AUTH_TOKEN" not in variables
    assert "MESHAGENT_TOKEN" not in variables
    return options, variables


def test_claude_code_gets_settings_and_no_secret_in_its_arguments(local: LocalProxy, tools: str) -> None:
    options, variables = launch(local.machine, "claude", "--", "-p", "hi", PATH=tools)

    assert options[0] == "--settings"
    assert options[2:] == ["-p", "hi"]
    settings = json.loads(options[1])
    assert settings["env"] == {"ANTHROPIC_BASE_URL": f"{local.base_url}/anthropic"}
    helper = subprocess.run(settings["apiKeyHelper"], shell=True, env=variables, capture_output=True, text=True)  # noqa: S602  # as Claude Code runs it
    assert helper.stdout.strip() == local.bearer
    assert "ANTHROPIC_API_KEY" not in variables
    assert local.bearer not in " ".join(options)


def test_codex_gets_a_provider_of_its_own_by_options(local: LocalProxy, tools: str) -> None:
    options, variables = launch(local.machine, "codex", "--", "exec", "hi", PATH=tools)

    assert options[0::2][:2] == ["-c", "-c"]
    assert options[4:] == ["exec", "hi"]
    configured: Any = tomllib.loads(f"{options[1]}\n{options[3]}")
    provider = configured["model_providers"][configured["model_provider"]]
    assert (provider["base_url"], provider["wire_api"]) == (f"{local.base_url}/openai/v1", "responses")
    assert variables[provider["env_key"]] == local.bearer
    assert local.bearer not in " ".join(options)


def test_launch_starts_a_proxy_for_the_life_of_the_tool(machine: Machine, tools: str) -> None:
    _, variables = launch(machine, "codex", "--upstream", UPSTREAM, PATH=tools)

    assert variables["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
    assert not list((machine.state / "run").iterdir())


def test_tool_that_is_not_installed_is_named(local: LocalProxy) -> None:
    missing = local.machine.run("launch", "codex", PATH="/none")

    assert (missing.returncode, missing.stderr) == (127, "codex: command not found\n")


def test_env_prints_the_block_of_the_proxy_started_last(local: LocalProxy) -> None:
    with running_local(local.machine, "--upstream", UPSTREAM, "--insecure", MESHAGENT_TOKEN=mint()) as second:
        newest = local.machine.run("env").stdout
        assert f"export OPENAI_BASE_URL={second.base_url}/openai/v1\n" in newest
        assert "export OPENAI_API_KEY=meshagent-insecure\n" in newest
        second.process.kill()  # its file stays
        second.process.wait()

        assert f"export OPENAI_BASE_URL={local.base_url}/openai/v1\n" in local.machine.run("env").stdout


def test_env_without_a_running_proxy_names_local(machine: Machine) -> None:
    refused = machine.run("env")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "start one with tornado-proxy local" in refused.stderr


def test_bash_reads_every_value() -> None:
    value = 'a\'b "c" $d `e` \\f'
    lines = SHELLS["bash"]({"VALUE": value}, ["LEFTOVER"])
    script = "\n".join([*lines, 'printf "%s|%s" "$VALUE" "${LEFTOVER-unset}"'])

    read = subprocess.run(["bash", "-c", script], env={"LEFTOVER": "x"}, capture_output=True, text=True, check=True)

    assert read.stdout == f"{value}|unset"


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("fish", [r"set -gx A 'x\'y\\z'", "set -e B"]),
        ("powershell", [r"$env:A = 'x''y\z'", "Remove-Item Env:B -ErrorAction SilentlyContinue"]),
        ("dotenv", [r'''A="x'y\\z"''', "B="]),
    ],
)
def test_other_shells_get_their_own_quotes(shell: str, lines: list[str]) -> None:
    assert SHELLS[shell]({"A": r"x'y\z"}, ["B"]) == lines
