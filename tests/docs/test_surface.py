"""The pages list everything that users see: metrics, error codes, log lines, routes, commands, dependencies."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase

from tests.docs.pages import DOCS, all_text, rows, text_of
from tests.harness import ROOT
from tornado_proxy.api.accounts.routes import ROUTES as ACCOUNTS_ROUTES
from tornado_proxy.api.admin.routes import ROUTES
from tornado_proxy.cli import main
from tornado_proxy.cli.reference import list_commands
from tornado_proxy.domain import errors
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.observability import metrics
from tornado_proxy.providers.registry import PROVIDERS
from tornado_proxy.simulator.model.directives import Directives, read_directives

PACKAGE = ROOT / "tornado_proxy"
METRICS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
COMMANDS = list(list_commands(main, "tornado-proxy"))


def parse_sources(text: str = "", *, where: Callable[[Path], bool] = lambda _: True) -> Iterator[tuple[Path, ast.AST]]:
    """Yield the path and syntax tree of every file with `text` except the simulator and helpers of other programs.

    Files for whose path `where` returns False are left out.

    To parse and walk all files takes a second, and each test process collects the tests of this file.
    """
    for path in sorted(PACKAGE.rglob("*.py")):
        if where(path) and path.relative_to(PACKAGE).parts[0] not in ("simulator", "sdk"):
            source = path.read_text("utf-8")
            if text in source:
                yield path, ast.parse(source)


def find_calls(text: str) -> Iterator[ast.Call]:
    """Yield every function call in the files of the package that contain `text`."""
    for _, tree in parse_sources(text):
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def metric_name(metric: MetricWrapperBase) -> str:
    """Return the name that Prometheus shows."""
    described = next(iter(metric.describe()))
    return described.name + ("_total" if described.type == "counter" else "")


@pytest.mark.parametrize("metric", METRICS, ids=metric_name)
def test_metrics_page_lists_the_kind_and_labels_of_each_metric(metric: MetricWrapperBase) -> None:
    listed = [row for row in rows(DOCS / "metrics.md") if row[0] == f"`{metric_name(metric)}`"]

    assert len(listed) == 1
    _, kind, _, labels, meaning = listed[0]
    assert kind == next(iter(metric.describe())).type
    assert re.findall(r"\w+", labels) == list(metric._labelnames)
    assert meaning


def test_pages_name_existing_metrics_only() -> None:
    known = {metric_name(metric) for metric in METRICS}

    assert (
        set(re.findall(r"\bllm_proxy_\w+", all_text())) - {"llm_proxy_surcharge", "llm_proxy_user", "llm_proxy_"}
        <= known
    )


def error_classes() -> list[type[RequestError]]:
    """Return all classes of errors that end a request."""
    return [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RequestError)]


def codes_of_raised_errors() -> set[str]:
    """Return the codes that raise statements pass as `code=`."""
    return {
        keyword.value.value
        for call in find_calls("code=")
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    }


def test_errors_page_lists_every_code_with_its_status() -> None:
    listed = {(row[0].strip("`"), row[1]) for row in rows(DOCS / "errors.md") if re.fullmatch(r"`\w+`", row[0])}
    # A class without a `code` of its own inherits one that is listed already.
    of_classes = {(error.code, str(error.status)) for error in error_classes() if "code" in vars(error)}

    assert of_classes - listed == set()
    assert {code for code, _ in listed} == {code for code, _ in of_classes} | codes_of_raised_errors()


def test_operations_page_lists_every_5xx_code() -> None:
    page = text_of("operations.md")
    codes = {error.code for error in error_classes() if error.status >= 500}

    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def find_log_lines() -> Iterator[tuple[str, str, list[str]]]:
    """Yield (level, message, names of fields) of every line that the package logs."""
    for call in find_calls("_log."):
        if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) != "_log":
            continue
        message = call.args[0]
        # A message that is computed could not be found on the page.
        assert isinstance(message, ast.Constant), ast.unparse(call)
        extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), ast.Dict([], []))
        assert isinstance(extra, ast.Dict), ast.unparse(call)
        yield (
            call.func.attr,
            str(message.value),
            [str(key.value) for key in extra.keys if isinstance(key, ast.Constant)],
        )


@pytest.mark.parametrize(("message", "fields"), sorted(line[1:] for line in find_log_lines()))
def test_metrics_page_lists_each_log_line_with_its_fields(message: str, fields: list[str]) -> None:
    page = text_of("metrics.md")

    assert f"`{message}`" in page
    assert [field for field in fields if f"`{field}`" not in page] == []


@pytest.mark.parametrize("message", sorted({message for level, message, _ in find_log_lines() if level != "info"}))
def test_operations_page_lists_each_log_line_above_info(message: str) -> None:
    page = " ".join(text_of("operations.md").split())  # a message may be wrapped

    assert f"`{message}`" in page


@pytest.mark.parametrize(
    ("provider", "method", "path"),
    [(provider.name, endpoint.method, endpoint.path) for provider in PROVIDERS for endpoint in provider.endpoints],
)
def test_endpoints_page_lists_each_route_of_a_provider_once(provider: str, method: str, path: str) -> None:
    listed = [row for row in rows(DOCS / "endpoints.md") if row[0].lower() == provider and row[2] == f"`{path}`"]

    assert len([row for row in listed if method in re.findall(r"[A-Z]{3,}", row[1])]) == 1


def own_paths() -> set[str]:
    """Return the fixed beginnings of the path patterns of our own handlers."""
    return {
        re.split(r"[(\[\\]", first.value)[0].rstrip("/")
        for _, tree in parse_sources(where=lambda path: path.parent.name in ("api", "gateway") or path.name == "app.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple) and len(node.elts) >= 2 and isinstance(first := node.elts[0], ast.Constant)
        if isinstance(first.value, str) and first.value.startswith("/")
    } | {route.path for route in (*ROUTES, *ACCOUNTS_ROUTES)}


def test_pages_name_each_path_of_our_own_handlers() -> None:
    paths, text = own_paths(), all_text()

    assert "/healthz" in paths
    assert [path for path in paths if path not in text] == []


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_command_has_help_for_each_option_and_an_example(name: str, command: click.Command) -> None:
    help_text = f"{command.help}\n{command.epilog}"

    assert "Example:" in help_text
    assert name.split(" ", 1)[1] in help_text.partition("Example:")[2]
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_architecture_page_lists_the_layers_of_the_import_contract_in_order() -> None:
    contract = configparser.ConfigParser()
    contract.read(ROOT / "setup.cfg", "utf-8")
    layers = contract["importlinter:contract:layers"]["layers"].split("\n")
    packages = [name.strip() for layer in layers for name in layer.split("|") if name.strip()]
    # The names are in the first column of the drawing, their descriptions start at column 32.
    drawing = text_of("architecture.md").partition("## Layers")[2].partition("```")[2].partition("```")[0]
    listed = [word for line in drawing.splitlines() for word in re.findall(r"[a-z_]+", line[:32])]

    assert [name for name in listed if name in packages] == packages


def test_architecture_page_lists_every_broad_except() -> None:
    page = text_of("architecture.md").partition("## Broad excepts")[2]
    files = {path.relative_to(PACKAGE).as_posix() for path, _ in parse_sources("BLE001")}

    assert [file for file in files if f"`{file}`" not in page] == []


def required_packages(section: str, option: str) -> list[str]:
    """Return the packages that an option of setup.cfg requires."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    return re.findall(r"^[\w.\[\]-]+", setup[section][option], re.MULTILINE)


RUNTIME = [
    *required_packages("options", "install_requires"),
    *required_packages("options.extras_require", "postgresql"),
    *required_packages("options.extras_require", "sdk"),
]
DEVELOPMENT = required_packages("options.extras_require", "dev")


def listed_packages() -> list[str]:
    """Return the packages that docs/dependencies.md lists."""
    return [name for row in rows(DOCS / "dependencies.md") for name in re.split(r"[`, ]+", row[0])]


@pytest.mark.parametrize("name", sorted({*RUNTIME, *DEVELOPMENT}))
def test_dependencies_page_lists_each_dependency(name: str) -> None:
    assert name.partition("[")[0] in listed_packages()


def test_dependencies_page_lists_dependencies_only() -> None:
    known = {name.partition("[")[0] for name in (*RUNTIME, *DEVELOPMENT)}

    assert set(listed_packages()) - known == {"package", "meshagent-api"}


#: The directives of the page.  The first cells of its table of options begin with two dashes.
DIRECTIVES = [row[0].strip("`") for row in rows(DOCS / "simulator.md") if re.match(r"`[^-]", row[0])]


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_simulator_reads_each_directive_of_its_page(directive: str) -> None:
    assert read_directives(f"[[sim {directive.replace('JSON', '{}')}]]") != Directives()


def test_simulator_page_lists_every_directive() -> None:
    read = read_directives("".join(f"[[sim {directive.replace('JSON', '[1]')}]]" for directive in DIRECTIVES))

    missing = [field.name for field in dataclasses.fields(Directives) if getattr(read, field.name) == field.default]
    assert missing == []
