"""The blocks of docs/laptop.md run as they are, in their order, and the texts that docs/local.md explains exist."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, fences, rows
from tests.harness import PROJECT, ROOT, TIMEOUT_S, ProxyProcess, running_proxy
from tests.local.local_proxy import running_local
from tests.local.machine import Machine
from tests.oauth.real_issuer import RealIssuer
from tests.server.test_oauth import ADA, configure
from tornado_proxy.simulator import running_simulator

BLOCKS = list(fences(DOCS / "laptop.md", "sh"))
INSTALL, LOG_IN, USE_TOKEN, START, USE, LAUNCH, COST, ONE_COMMAND, CONNECT, DEMO, START_AT_DEMO = BLOCKS

#: Programs on the PATH of the machine: the command, and tools that print how they were started.
PROGRAMS = {
    "tornado-proxy": f'#!/bin/sh\nexec {sys.executable} -m tornado_proxy "$@"\n',
    "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    "claude": '#!/bin/sh\necho "claude $*"\n',
    "codex": '#!/bin/sh\necho "codex $*"\n',
}
AGENT = "import openai; print(openai.OpenAI().responses.create(model='gpt-4o-mini', input='hi').output_text)\n"


@pytest.fixture(scope="module")
def proxy(issuer: RealIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The server of a team, which states how to log in."""
    config = configure(issuer, ADA)
    config["oauth"][0]["login"] = {"client_id": "cli"}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
        with (
            running_simulator() as upstream,
            running_proxy(tmp_path_factory.mktemp("hosted"), upstream, **config) as running,
        ):
            yield running


@pytest.fixture
def laptop(machine: Machine, tmp_path: Path) -> Machine:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "agent.py").write_text(AGENT)
    machine.environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return machine


def run(laptop: Machine, *blocks: str) -> str:
    """Run blocks in one shell; return their output, or fail with their errors."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        check=False,
        cwd=laptop.home,
        env={**laptop.variables, "PYTHONPATH": str(ROOT)},
        timeout=4 * TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def exports(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if line.startswith("export "))


def test_steps_of_a_login_work_as_written(laptop: Machine, proxy: ProxyProcess) -> None:
    log_in = LOG_IN.replace("https://llm.example.com", proxy.base_url)
    shell = exports(log_in)
    assert PROJECT in shell
    assert START == "tornado-proxy local\n"

    assert "user: ada@example.com" in run(laptop, log_in)
    with running_local(laptop, MESHAGENT_PROJECT_ID=PROJECT) as local:
        assert '"object":"chat.completion"' in run(laptop, shell, USE)
        launched = run(laptop, shell, LAUNCH)
        assert re.search(r"^claude --settings .* -p Say hello\.$", launched, re.MULTILINE)
        assert re.search(r"^codex -c .* exec Say hello\.$", launched, re.MULTILINE)
        local.read_records(1)
        assert "curl/" in run(laptop, shell, COST)
    assert "stand-in" in run(laptop, shell, ONE_COMMAND)
    assert "stand-in" in run(laptop, shell, CONNECT)

    records = proxy.read_records(count=3)
    assert [(record["user"], record["participant"]) for record in records] == [
        ("ada", None),
        ("ada", None),
        (None, "ada@example.com"),
    ]


def test_demo_works_as_written(laptop: Machine) -> None:
    # The ports of the page can be in use on the machine of the test.
    demo = laptop.start(*DEMO.split()[1:], "--port", "0", "--admin-port", "0", cwd=laptop.home)
    try:
        assert demo.stdout is not None
        printed = []
        for line in demo.stdout:
            printed.append(line)
            if "Ctrl-C" in line:
                break
        variables = exports("".join(printed))
        url = re.search(r"OPENAI_BASE_URL=(\S+)/openai/v1", variables)
        assert url is not None

        (laptop.home / "use.sh").write_text(USE.replace('eval "$(tornado-proxy env)"', ""))
        start = START_AT_DEMO.replace("http://127.0.0.1:8080", url[1])
        assert start.endswith("tornado-proxy local\n")
        shown = run(laptop, variables, f"{start.rstrip()} --port 0 -- bash use.sh")
    finally:
        demo.terminate()
        demo.communicate(timeout=TIMEOUT_S)

    assert '"object":"chat.completion"' in shown


def test_token_in_place_of_a_login_is_read_by_local() -> None:
    assert USE_TOKEN == "export MESHAGENT_TOKEN=$TOKEN\n"
    assert "pip install --quiet ." in INSTALL


def list_explained_texts() -> Iterator[str]:
    """Yield the messages of the program that docs/local.md explains."""
    for row in rows(DOCS / "local.md"):
        if len(row) == 3 and row[0] != "you see":
            yield from re.findall(r"`([^`]{12,})`", row[0])


#: Texts of other programs, and of the system.
FOREIGN_TEXTS = {"Connection error.", "Connection refused", "Incorrect API key provided"}


@functools.cache
def join_literals() -> str:
    """Return the sources of the program with the literals of each long message joined."""
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tornado_proxy").rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", sources)


@pytest.mark.parametrize("text", sorted(set(list_explained_texts()) - FOREIGN_TEXTS))
def test_explained_text_is_one_of_the_program(text: str) -> None:
    joined = join_literals()
    # The values in a message, and the names that are constants in the sources.
    values = r"127\.0\.0\.1:8766: .*|claude|codex|run tornado-proxy login$|MESHAGENT_PROJECT_ID|: access_denied|\.\.\."

    assert all(part.strip() in joined for part in re.split(values, text)), text
