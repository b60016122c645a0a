"""What the program shows to the world stands in docs/: metrics, error codes, log lines, routes, commands."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase

from tests.docs.pages import DOCS, all_text, rows, text_of
from tests.harness import ROOT
from tornado_proxy.cli import main
from tornado_proxy.cli.reference import list_commands
from tornado_proxy.domain import errors
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.observability import metrics
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.simulator.model.directives import Directives, read_directives

PACKAGE = ROOT / "tornado_proxy"
METRICS = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
COMMANDS = list(list_commands(main, "tornado-proxy"))


def sources() -> Iterator[tuple[Path, ast.AST]]:
    """Every file of the program but the simulator, parsed."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "simulator" not in path.parts:
            yield path, ast.parse(path.read_text("utf-8"))


def calls() -> Iterator[ast.Call]:
    for _, tree in sources():
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(metric: MetricWrapperBase) -> str:
    described = next(iter(metric.describe()))
    return described.name + ("_total" if described.type == "counter" else "")


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_a_metric_is_on_the_page_with_its_kind_and_labels(metric: MetricWrapperBase) -> None:
    found = [row for row in rows(DOCS / "metrics.md") if row[0] == f"`{name_of(metric)}`"]

    assert len(found) == 1
    _, kind, _, labels, meaning = found[0]
    assert kind == next(iter(metric.describe())).type
    assert re.findall(r"\w+", labels) == list(metric._labelnames)
    assert meaning


def test_the_page_names_no_metric_that_is_gone() -> None:
    known = {name_of(metric) for metric in METRICS}

    assert set(re.findall(r"\bllm_proxy_\w+", all_text())) - {"llm_proxy_surcharge", "llm_proxy_"} <= known


def error_classes() -> list[type[RequestError]]:
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, RequestError)]


def given_codes() -> set[str]:
    """Codes that are given where an error is raised."""
    return {
        keyword.value.value
        for call in calls()
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    }


def test_every_error_code_is_on_the_page_with_its_status() -> None:
    listed = {(row[0].strip("`"), row[1]) for row in rows(DOCS / "errors.md") if re.fullmatch(r"`\w+`", row[0])}
    of_classes = {(one.code, str(one.status)) for one in error_classes() if "code" in vars(one)}

    assert of_classes - listed == set()
    assert {code for code, _ in listed} == {code for code, _ in of_classes} | given_codes()


def test_every_error_that_is_not_the_caller_s_fault_is_where_an_operator_looks() -> None:
    page = text_of("operations.md")
    codes = {one.code for one in error_classes() if one.status >= 500}

    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def log_calls() -> Iterator[tuple[str, str, list[str]]]:
    """(level, message, names given as extra) of every line that the program logs."""
    for call in calls():
        if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) != "_log":
            continue
        message = call.args[0]
        assert isinstance(message, ast.Constant), ast.unparse(call)
        extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), ast.Dict([], []))
        assert isinstance(extra, ast.Dict), ast.unparse(call)
        yield (
            call.func.attr,
            str(message.value),
            [str(key.value) for key in extra.keys if isinstance(key, ast.Constant)],
        )


@pytest.mark.parametrize(("message", "fields"), sorted(line[1:] for line in log_calls()))
def test_a_log_line_and_its_fields_are_on_the_page(message: str, fields: list[str]) -> None:
    page = text_of("metrics.md")

    assert f"`{message}`" in page
    assert [field for field in fields if f"`{field}`" not in page] == []


@pytest.mark.parametrize("message", sorted({message for level, message, _ in log_calls() if level != "info"}))
def test_a_line_that_wants_a_person_is_where_an_operator_looks(message: str) -> None:
    page = " ".join(text_of("operations.md").split())  # a message may go over the end of a line

    assert f"`{message}`" in page


@pytest.mark.parametrize(
    ("provider", "method", "path"),
    [(provider.name, endpoint.method, endpoint.path) for provider in PROVIDERS for endpoint in provider.endpoints],
)
def test_a_route_of_a_provider_is_on_the_page(provider: str, method: str, path: str) -> None:
    listed = [row for row in rows(DOCS / "endpoints.md") if row[0].lower() == provider and row[2] == f"`{path}`"]

    assert len([row for row in listed if method in re.findall(r"[A-Z]{3,}", row[1])]) == 1


def own_paths() -> set[str]:
    """First parts of the path patterns of our own handlers, up to what varies."""
    return {
        re.split(r"[(\[\\]", first.value)[0].rstrip("/")
        for path, tree in sources()
        if path.parent.name in ("api", "gateway") or path.name == "app.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple) and len(node.elts) >= 2 and isinstance(first := node.elts[0], ast.Constant)
        if isinstance(first.value, str) and first.value.startswith("/")
    }


def test_a_path_of_our_own_is_on_a_page() -> None:
    assert "/healthz" in own_paths()
    assert [path for path in own_paths() if path not in all_text()] == []


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_a_command_helps_with_words_for_each_option_and_an_example(words: str, command: click.Command) -> None:
    said = f"{command.help}\n{command.epilog}"

    assert "Example:" in said
    assert words.split(" ", 1)[1] in said.partition("Example:")[2]
    assert [one.name for one in command.params if isinstance(one, click.Option) and not one.help] == []


def test_architecture_page_lists_the_layers_of_the_import_contract_in_order() -> None:
    contract = configparser.ConfigParser()
    contract.read(ROOT / "setup.cfg", "utf-8")
    layers = contract["importlinter:contract:layers"]["layers"].split("\n")
    packages = [name.strip() for layer in layers for name in layer.split("|") if name.strip()]
    drawing = text_of("architecture.md").partition("## Layers")[2].partition("```")[2].partition("```")[0]
    listed = [word for line in drawing.splitlines() for word in re.findall(r"[a-z_]+", line[:32])]

    assert [name for name in listed if name in packages] == packages


def test_every_broad_except_is_on_the_page_with_its_reason() -> None:
    page = text_of("architecture.md").partition("## Broad excepts")[2]
    places = {path.relative_to(PACKAGE).as_posix() for path, _ in sources() if "BLE001" in path.read_text("utf-8")}

    assert [place for place in places if f"`{place}`" not in page] == []


def required(section: str, option: str) -> list[str]:
    """The packages that setup.cfg asks for there."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    return re.findall(r"^[\w.\[\]-]+", setup[section][option], re.MULTILINE)


RUNTIME = required("options", "install_requires") + required("options.extras_require", "postgresql")
DEVELOPMENT = required("options.extras_require", "dev")


def packages_on_the_page() -> list[str]:
    return [name for row in rows(DOCS / "dependencies.md") for name in re.split(r"[`, ]+", row[0])]


@pytest.mark.parametrize("name", sorted({*RUNTIME, *DEVELOPMENT}))
def test_a_dependency_has_its_reason_on_the_page(name: str) -> None:
    assert name.partition("[")[0] in packages_on_the_page()


def test_the_page_names_no_dependency_that_is_gone() -> None:
    known = {name.partition("[")[0] for name in (*RUNTIME, *DEVELOPMENT)}

    assert set(packages_on_the_page()) - known == {"package", "meshagent-api"}


#: First cells of the table of directives; those of the table of options begin with two dashes.
DIRECTIVES = [row[0].strip("`") for row in rows(DOCS / "simulator.md") if re.match(r"`[^-]", row[0])]


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_a_directive_on_the_page_of_the_simulator_is_understood(directive: str) -> None:
    assert read_directives(f"[[sim {directive.replace('JSON', '{}')}]]") != Directives()


def test_every_directive_is_on_the_page() -> None:
    read = read_directives("".join(f"[[sim {directive.replace('JSON', '[1]')}]]" for directive in DIRECTIVES))

    untold = [field.name for field in dataclasses.fields(Directives) if getattr(read, field.name) == field.default]
    assert untold == []
