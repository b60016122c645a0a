"""The schemas, the bundled configuration files, and the page that is generated from the schemas."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.harness import ROOT
from tornado_proxy.config.bundled import conf_path, find_folder, schema
from tornado_proxy.config.files import read_document
from tornado_proxy.config.loading import load_settings, read_config
from tornado_proxy.config.reference import write_reference
from tornado_proxy.config.validation import check
from tornado_proxy.providers.registry import PROVIDERS

SCHEMAS = ("proxy", "projects", "prices")
EXAMPLE_SECRETS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")


def list_properties(rule: object, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted path and the rule of each property, at any depth."""
    if isinstance(rule, dict):
        for name, member in rule.get("properties", {}).items():
            yield f"{path}.{name}", member
        for keyword, value in rule.items():
            yield from list_properties(value, f"{path}.{keyword}")
    elif isinstance(rule, list):
        for value in rule:
            yield from list_properties(value, path)


@pytest.mark.parametrize("path", sorted((ROOT / "schemas").glob("*.json")), ids=lambda path: path.name)
def test_schema_is_valid_json_schema(path: Path) -> None:
    Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_property_has_a_description(name: str) -> None:
    found = dict(list_properties(schema(name), name))

    assert len(found) > 10
    assert [path for path, rule in found.items() if not str(rule.get("description", "")).endswith(".")] == []


@pytest.mark.parametrize("name", ["proxy", "projects"])
def test_numbers_have_limits_and_seconds_and_bytes_name_their_unit(name: str) -> None:
    for path, rule in list_properties(schema(name), name):
        if rule.get("type") in ("integer", "number"):
            assert {"minimum", "maximum"} <= rule.keys(), path
        if path.endswith("_s"):
            assert "Seconds" in rule["description"], path
        if path.endswith("_mb"):
            assert "MiB" in rule["description"], path


def test_secret_is_defined_equally_in_both_schemas() -> None:
    assert schema("proxy")["$defs"]["secret"] == schema("projects")["$defs"]["secret"]


def test_provider_name_is_defined_equally_in_all_schemas_and_no_schema_names_a_provider() -> None:
    names = ("proxy", "projects", "prices", "usage_record")
    definitions = [schema(name)["$defs"]["provider_name"] for name in names]

    assert definitions == [definitions[0]] * len(names)
    assert all(re.fullmatch(definitions[0]["pattern"], provider.name) for provider in PROVIDERS)
    for name, provider in itertools.product(names, PROVIDERS):
        assert f'"{provider.name}"' not in json.dumps(schema(name), default=str)


def test_page_names_every_provider() -> None:
    assert all(f"`{provider.name}`" in write_reference() for provider in PROVIDERS)


@pytest.mark.parametrize(
    ("path", "name"), [("proxy.yaml", "proxy"), ("projects.yaml", "projects"), *(
        (f"prices/{path.name}", "prices") for path in sorted((ROOT / "conf" / "prices").glob("*.yaml")))]
)  # fmt: skip
def test_bundled_file_is_valid_and_names_its_schema(path: str, name: str) -> None:
    file = conf_path(path)

    assert check(read_document(file), name) == []
    first = file.read_text().splitlines()[0]
    _, _, linked = first.partition("$schema=")
    assert (file.parent / linked).resolve() == (find_folder("schemas") / f"{name}.schema.json").resolve()


def test_example_configuration_lacks_only_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXAMPLE_SECRETS:
        monkeypatch.delenv(name, raising=False)

    rules = sorted(fault.rule for fault in read_config(conf_path("proxy.yaml")).faults)

    assert rules == [f"environment variable {name} is not set" for name in EXAMPLE_SECRETS]


def test_supervisord_waits_longer_than_the_example_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXAMPLE_SECRETS:
        monkeypatch.setenv(name, "some-secret")
    lines = conf_path("supervisord.conf").read_text().splitlines()
    (wait_s,) = (int(line.partition("=")[2]) for line in lines if line.startswith("stopwaitsecs"))

    assert wait_s > load_settings(conf_path("proxy.yaml")).settings.shutdown.drain_s


def test_configuration_page_is_generated_from_the_schemas() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert page == write_reference(), "run: python -m tornado_proxy.config.reference > docs/configuration.md"


def test_page_names_the_command_that_generates_it() -> None:
    command = [sys.executable, "-m", "tornado_proxy.config.reference"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)

    assert printed.stdout == write_reference()


@pytest.mark.parametrize("name", ["proxy", "projects"])
def test_page_names_every_setting(name: str) -> None:
    page = write_reference()

    for path, _ in list_properties(schema(name)["properties"], ""):
        if "$defs" not in path:
            assert f"{path.rpartition('.')[2]}`" in page, path
