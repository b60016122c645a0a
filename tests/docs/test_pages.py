"""Commands on a page are commands, examples are valid, and no page knows its author's machine."""

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

from tests.docs.pages import DOCS, README, fences, pages, text_of
from tests.harness import ROOT
from tornado_proxy.cli import main
from tornado_proxy.cli.reference import write_reference as write_commands
from tornado_proxy.config.bundled import schema
from tornado_proxy.config.reference import write_reference as write_configuration
from tornado_proxy.config.validation import check
from tornado_proxy.domain.document import Document

#: Marks of one person's machine: home folders, temporary files, drives.
_MACHINE = re.compile(r"/home/\w|/Users/\w|/root/|/tmp/|/mnt/|\b[A-Z]:\\|\.local\b(?!host)")

_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_configuration_md_is_what_the_schemas_say() -> None:
    repeat = "python -m tornado_proxy.config.reference > docs/configuration.md"
    assert text_of("configuration.md") == write_configuration(), repeat


def test_commands_md_is_what_the_commands_say() -> None:
    repeat = "python -m tornado_proxy.cli.reference > docs/commands.md"
    assert text_of("commands.md") == write_commands(), repeat


def test_the_least_configuration_on_the_page_is_valid() -> None:
    (block,) = fences(DOCS / "configuration.md", "yaml")

    assert check(Document("page", yaml.safe_load(block), {}), "proxy") == []


@pytest.mark.parametrize("page", pages(), ids=named)
def test_no_page_names_a_person_s_machine(page: Path) -> None:
    assert _MACHINE.findall(page.read_text("utf-8")) == []


def shell_lines() -> Iterator[tuple[str, str]]:
    """(page, line) of every shell line that calls our program; lines that go on are joined."""
    for page in pages():
        for block in fences(page, "sh", "bash", ""):
            prompted = "\n$ " in f"\n{block}"
            for line in block.replace("\\\n", " ").splitlines():
                if prompted and not line.startswith("$ "):
                    continue  # what a command prints
                if "tornado-proxy " in line:
                    yield named(page), line.removeprefix("$ ")


def our_calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of tornado-proxy in a shell line."""
    for part in re.split(r"&&|\|\||[;|]", re.sub(r"\$\([^)]*\)", "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10", line)):
        words = shlex.split(re.split(r"\s[<>]\s?", part)[0], comments=True)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if words and Path(words[0]).name == "tornado-proxy":
            yield words[1:]


@pytest.mark.parametrize(("page", "line"), sorted(set(shell_lines())))
def test_every_command_on_a_page_is_understood(page: str, line: str) -> None:
    for words in our_calls(line):
        command: click.Command = main
        arguments = list(words)
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None, line
            command = found
        if "[OPTIONS]" not in words:  # else a synopsis
            with contextlib.suppress(click.exceptions.Exit):  # --help ends there
                command.make_context("tornado-proxy", arguments)


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_example_on_a_page_can_be_read_by_what_it_is_for(page: Path) -> None:
    for block in fences(page, "python"):
        compile(block, named(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for block in fences(page, "yaml"):
        yaml.safe_load(block)
    for block in fences(page, "json"):
        json.loads(block)


def test_every_setting_has_a_description_in_its_schema() -> None:
    for name in ("proxy", "projects", "prices"):
        assert list(_undescribed(schema(name), name)) == []


def _undescribed(rule: object, at: str) -> Iterator[str]:
    if isinstance(rule, dict):
        for key, one in rule.get("properties", {}).items():
            if "description" not in one and "$ref" not in one:
                yield f"{at}.{key}"
        for key, one in rule.items():
            yield from _undescribed(one, f"{at}/{key}")
    elif isinstance(rule, list):
        for index, one in enumerate(rule):
            yield from _undescribed(one, f"{at}[{index}]")


def test_the_two_commands_of_the_readme_are_what_sets_up_and_what_tests() -> None:
    blocks = list(fences(README, "sh"))

    assert blocks[0] == "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/tornado-proxy demo\n"
    assert "bash tests/run\n" in blocks
    for script in ("tests/run", "tests/setup", "tests/agents.sh", ".ci/run"):
        subprocess.run(["bash", "-n", script], check=True, cwd=ROOT)
