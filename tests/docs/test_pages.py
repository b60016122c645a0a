"""Commands on the pages parse, examples are valid, and generated pages are current."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from tests.docs.pages import DOCS, README, fences, page_name, pages, text_of
from tests.harness import ROOT
from tornado_proxy.cli import main
from tornado_proxy.cli.reference import write_reference as write_commands
from tornado_proxy.config.bundled import schema
from tornado_proxy.config.reference import write_reference as write_configuration
from tornado_proxy.config.validation import check
from tornado_proxy.domain.config.document import Document

#: Paths of one person's machine: home folders, temporary files, drives.
_MACHINE_PATH = re.compile(r"/home/\w|/Users/\w|/root/|/tmp/|/mnt/|\b[A-Z]:\\|\.local\b(?!host)")

_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")

#: Replaces a command substitution, which shlex does not run.
_PROJECT_ID = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"


def test_configuration_page_is_generated_from_the_schemas() -> None:
    command = "python -m tornado_proxy.config.reference > docs/configuration.md"
    assert text_of("configuration.md") == write_configuration(), command


def test_commands_page_is_generated_from_the_commands() -> None:
    command = "python -m tornado_proxy.cli.reference > docs/commands.md"
    assert text_of("commands.md") == write_commands(), command


def test_minimal_configuration_on_the_page_is_valid() -> None:
    (block,) = fences(DOCS / "configuration.md", "yaml")

    assert check(Document("page", yaml.safe_load(block), {}), "proxy") == []


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_page_names_no_path_of_a_personal_machine(page: Path) -> None:
    assert _MACHINE_PATH.findall(page.read_text("utf-8")) == []


def shell_lines() -> Iterator[tuple[str, str]]:
    """Yield (page, line) of every shell line that runs tornado-proxy; continued lines are joined."""
    for page in pages():
        for block in fences(page, "sh", "bash", ""):
            # In a block with prompts, the other lines are output.
            has_prompts = "\n$ " in f"\n{block}"
            for line in block.replace("\\\n", " ").splitlines():
                if has_prompts and not line.startswith("$ "):
                    continue
                if "tornado-proxy " in line:
                    yield page_name(page), line.removeprefix("$ ")


def command_arguments(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each tornado-proxy command in a shell line."""
    for part in re.split(r"&&|\|\||[;|]", re.sub(r"\$\([^)]*\)", _PROJECT_ID, line)):
        arguments = shlex.split(re.split(r"\s[<>]\s?", part)[0], comments=True)
        while arguments and _ASSIGNMENT.fullmatch(arguments[0]):
            arguments.pop(0)
        if arguments and Path(arguments[0]).name == "tornado-proxy":
            yield arguments[1:]


@pytest.mark.parametrize(("page", "line"), sorted(set(shell_lines())))
def test_command_on_a_page_parses(page: str, line: str) -> None:
    for arguments in command_arguments(line):
        is_synopsis = "[OPTIONS]" in arguments
        command: click.Command = main
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None, line
            command = found
        if not is_synopsis:
            with contextlib.suppress(click.exceptions.Exit):  # raised by --help
                command.make_context("tornado-proxy", arguments)


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_examples_on_a_page_are_valid(page: Path) -> None:
    for block in fences(page, "python"):
        # Examples show `async with` outside a function, as the asyncio REPL allows.
        compile(block, page_name(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for block in fences(page, "yaml"):
        yaml.safe_load(block)
    for block in fences(page, "json"):
        json.loads(block)


def test_decisions_are_numbered_without_a_gap() -> None:
    files = sorted((DOCS / "decisions").glob("*.md"))

    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for number, file in enumerate(files, start=1):
        assert file.read_text().startswith(f"# {number}. "), file.name


def test_changelog_entries_are_short_and_sorted_by_kind() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    changes = text.partition("\n### Added\n")[2]
    entries = [" ".join(entry.split()) for entry in re.findall(r"^- (.*(?:\n  (?!\|).*)*)", changes, re.MULTILINE)]
    plain = [re.sub(r"\(\[[^\]]*\]\([^)]*\)\)", "", entry) for entry in entries]

    assert set(kinds) <= {"Upgrading", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert [entry for entry in plain if len(entry.split()) > 40] == []
    assert len(plain) > 100  # fewer would mean that the pattern no longer finds them


def test_every_setting_has_a_description_in_its_schema() -> None:
    for name in ("proxy", "projects", "prices"):
        assert list(_find_undescribed(schema(name), name)) == []


def _find_undescribed(rule: object, at: str) -> Iterator[str]:
    if isinstance(rule, dict):
        for key, value in rule.get("properties", {}).items():
            if "description" not in value and "$ref" not in value:
                yield f"{at}.{key}"
        for key, value in rule.items():
            yield from _find_undescribed(value, f"{at}/{key}")
    elif isinstance(rule, list):
        for index, value in enumerate(rule):
            yield from _find_undescribed(value, f"{at}[{index}]")


def test_readme_has_one_command_for_the_demo_and_one_for_the_tests() -> None:
    blocks = list(fences(README, "sh"))

    assert blocks[0] == "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/tornado-proxy demo\n"
    assert "bash tests/run\n" in blocks
    # The scripts that the pages name; running them takes minutes, so only their syntax is checked.
    for script in ("tests/run", "tests/setup", "tests/agents.sh", "tests/local_agents.sh", ".ci/run"):
        subprocess.run(["bash", "-n", script], check=True, cwd=ROOT)
