"""The schemas, the configuration files that come with the program, and the page that is made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.harness import ROOT
from tornado_proxy.config.bundled import conf_path, folder, schema
from tornado_proxy.config.files import read_document
from tornado_proxy.config.loading import load_settings, read_config
from tornado_proxy.config.reference import write_reference
from tornado_proxy.config.validation import check

OURS = ("proxy", "projects", "prices")
SECRETS_OF_THE_EXAMPLE = ("ACME_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY")


def properties(rule: object, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(rule, dict):
        for name, one in rule.get("properties", {}).items():
            yield f"{at}.{name}", one
        for key, one in rule.items():
            yield from properties(one, f"{at}.{key}")
    elif isinstance(rule, list):
        for one in rule:
            yield from properties(one, at)


@pytest.mark.parametrize("path", sorted((ROOT / "schemas").glob("*.json")), ids=lambda path: path.name)
def test_each_schema_is_valid_json_schema(path: Path) -> None:
    Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("name", OURS)
def test_every_property_is_described(name: str) -> None:
    found = dict(properties(schema(name), name))

    assert len(found) > 10
    assert [at for at, rule in found.items() if not str(rule.get("description", "")).endswith(".")] == []


@pytest.mark.parametrize("name", ["proxy", "projects"])
def test_every_number_has_limits_and_every_setting_of_seconds_or_bytes_its_unit(name: str) -> None:
    for at, rule in properties(schema(name), name):
        if rule.get("type") in ("integer", "number"):
            assert {"minimum", "maximum"} <= rule.keys(), at
        if at.endswith("_s"):
            assert "Seconds" in rule["description"], at
        if at.endswith("_mb"):
            assert "MiB" in rule["description"], at


def test_the_two_definitions_of_a_secret_are_one() -> None:
    assert schema("proxy")["$defs"]["secret"] == schema("projects")["$defs"]["secret"]


@pytest.mark.parametrize(
    ("path", "name"), [("proxy.yaml", "proxy"), ("projects.yaml", "projects"), *(
        (f"prices/{path.name}", "prices") for path in sorted((ROOT / "conf" / "prices").glob("*.yaml")))]
)  # fmt: skip
def test_the_files_that_come_with_the_program_are_valid(path: str, name: str) -> None:
    file = conf_path(path)

    assert check(read_document(file), name) == []
    first = file.read_text().splitlines()[0]
    _, _, linked = first.partition("$schema=")
    assert (file.parent / linked).resolve() == (folder("schemas") / f"{name}.schema.json").resolve()


def test_the_example_lacks_its_secrets_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS_OF_THE_EXAMPLE:
        monkeypatch.delenv(name, raising=False)

    rules = sorted(fault.rule for fault in read_config(conf_path("proxy.yaml")).faults)

    assert rules == [f"environment variable {name} is not set" for name in SECRETS_OF_THE_EXAMPLE]


def test_supervisord_waits_longer_than_the_example_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS_OF_THE_EXAMPLE:
        monkeypatch.setenv(name, "some-secret")
    lines = conf_path("supervisord.conf").read_text().splitlines()
    (waits_s,) = (int(line.partition("=")[2]) for line in lines if line.startswith("stopwaitsecs"))

    assert waits_s > load_settings(conf_path("proxy.yaml")).settings.shutdown.drain_s


def test_the_page_about_the_configuration_is_made_of_these_schemas() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert page == write_reference(), "run: python -m tornado_proxy.config.reference > docs/configuration.md"


def test_the_page_is_printed_by_the_command_that_it_names() -> None:
    command = [sys.executable, "-m", "tornado_proxy.config.reference"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)

    assert printed.stdout == write_reference()


@pytest.mark.parametrize("name", ["proxy", "projects"])
def test_the_page_names_every_setting(name: str) -> None:
    page = write_reference()

    for at, _ in properties(schema(name)["properties"], ""):
        if "$defs" not in at:
            assert f"{at.rpartition('.')[2]}`" in page, at
