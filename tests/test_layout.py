"""The layout of docs/architecture.md: tests mirror the pure packages, files are small, and imports form no circle."""

from __future__ import annotations

import ast
import configparser
import functools
import textwrap
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.harness import ROOT

PACKAGE = ROOT / "tornado_proxy"

#: Packages and files that do no I/O.  Unit tests cover each of their files, because they count money or check access.
PURE = (
    "domain",
    "wire",
    "auth",
    "config",
    "pricing",
    "providers",
    "reports",
    "metering/poll_schedule.py",
    "metering/request_meter.py",
    "metering/socket_meter.py",
)

#: Files that are tested through another one, with the tests that cover them.
TESTED_THROUGH = {
    "auth/oauth/claims.py": "auth/oauth/test_access_token.py",
    "auth/oauth/verifier.py": "issuers/test_key_cache.py",
    "auth/token_cache.py": "auth/test_authenticator.py",
    "auth/token_spec.py": "cli/projects/test_credentials.py",
    "auth/unverified_token.py": "auth/test_participant.py",
    "config/bundled.py": "config/test_schemas.py",
    "config/findings.py": "config/test_secrets.py",
    "config/sections/ledger.py": "config/test_settings.py",
    "config/projects.py": "config/test_loading.py",
    "config/reference.py": "config/test_schemas.py",
    "config/signing_key.py": "cli/local/test_connect.py",
    "domain/alert.py": "alerts/test_messages.py",
    "domain/attribution.py": "wire/test_client_facts.py",
    "domain/budgets/brake.py": "budgets/test_brakes.py",
    "domain/budgets/budget.py": "budgets/test_store.py",
    "domain/budgets/budget_limits.py": "reports/test_budgets.py",
    "domain/budgets/counter.py": "budgets/test_store.py",
    "domain/budgets/refusal.py": "gateway/budgets/test_gate.py",
    "domain/budgets/reservation.py": "budgets/leases/test_slices.py",
    "domain/budgets/spender.py": "budgets/test_store.py",
    "domain/budgets/warning.py": "budgets/test_warnings.py",
    "domain/config/fault.py": "domain/test_errors.py",
    "domain/config/ledger_address.py": "config/test_settings.py",
    "domain/config/loopback.py": "config/sections/test_oauth.py",
    "domain/config/oauth.py": "config/sections/test_oauth.py",
    "domain/record.py": "ledger/test_contract.py",
    "domain/request.py": "pricing/book/test_price_book.py",
    "domain/state.py": "state/test_store.py",
    "domain/units.py": "config/test_files.py",
    "domain/usage.py": "domain/test_values.py",
    "pricing/book/price.py": "pricing/book/test_price_book.py",
    "pricing/book/price_file.py": "pricing/book/test_price_book.py",
    "pricing/book/bound_line.py": "pricing/book/test_cost_bounds.py",
    "pricing/book/upper_bound.py": "pricing/book/test_cost_bounds.py",
    "pricing/lists/comparison.py": "cli/test_pricing.py",
    "pricing/lists/import_plan.py": "cli/test_pricing.py",
    "pricing/lists/price_list.py": "pricing/lists/test_import_litellm.py",
    "providers/anthropic/batches/results.py": "providers/anthropic/batches/test_endpoint.py",
    "providers/anthropic/complete.py": "providers/anthropic/messages/test_request.py",
    "providers/anthropic/count_tokens.py": "providers/anthropic/messages/test_request.py",
    "providers/anthropic/endpoints.py": "providers/test_route_table.py",
    "providers/anthropic/errors.py": "providers/anthropic/test_provider.py",
    "providers/contract.py": "providers/test_every_reader.py",
    "providers/conventions.py": "providers/test_registry.py",
    "providers/openai/audio/endpoints.py": "providers/test_route_table.py",
    "providers/openai/endpoints.py": "providers/test_route_table.py",
    "providers/openai/shared/quota.py": "providers/openai/responses/test_websocket.py",
    "providers/owned_objects.py": "providers/test_route_table.py",
}

MAX_LINES = 400

#: Modules in a folder, `__init__.py` not counted; a newcomer reads the names of one folder at a glance.
MAX_MODULES = 20

#: Names that say nothing about the content of a file or folder.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools"}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


PURE_SOURCES = [path for path in SOURCES if relative(path).startswith(tuple(PURE))]


@pytest.mark.parametrize("source", PURE_SOURCES, ids=relative)
def test_pure_file_has_a_test_of_its_name_or_a_line_in_the_table(source: Path) -> None:
    expected = ROOT / "tests" / source.relative_to(PACKAGE).parent / f"test_{source.name}"
    through = TESTED_THROUGH.get(relative(source))

    assert expected.exists() != (through is not None), (
        f"write {expected.relative_to(ROOT)}, or name the test that covers {relative(source)} in TESTED_THROUGH"
    )
    assert through is None or (ROOT / "tests" / through).exists()


def test_table_names_existing_files_only() -> None:
    assert set(TESTED_THROUGH) - {relative(source) for source in PURE_SOURCES} == set()
    assert [name for name in PURE if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_file_is_small_has_a_docstring_and_a_telling_name(source: Path) -> None:
    text = source.read_text("utf-8")

    assert len(text.splitlines()) < MAX_LINES
    assert ast.get_docstring(ast.parse(text)) or source.name == "__main__.py"
    assert not EMPTY_NAMES.intersection(part.removesuffix(".py") for part in source.relative_to(PACKAGE).parts)


@pytest.mark.parametrize("folder", sorted({source.parent for source in SOURCES}), ids=relative)
def test_folder_holds_few_modules(folder: Path) -> None:
    assert len([source for source in SOURCES if source.parent == folder]) <= MAX_MODULES, (
        f"sort the files of {folder.relative_to(ROOT)} into folders"
    )


def test_setup_lists_every_package() -> None:
    """A package that is missing there is missing in the wheel, although an editable install has it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    listed = {name for name in setup["options"]["packages"].split() if ".bundled." not in name}

    assert listed == {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("*.py")}


def test_imports_form_no_circle() -> None:
    graph = {module: set(list_imports(module)) for module in list_modules()}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(reversed(error.args[1]))}")


def test_every_form_of_import_is_read() -> None:
    source = """
        import tornado_proxy.tasks
        from tornado_proxy.domain import errors
        from tornado_proxy.domain.units import MIB

        def build() -> None:
            from tornado_proxy.app import App
    """

    assert set(read_imports(textwrap.dedent(source))) == {
        "tornado_proxy.tasks",
        "tornado_proxy.domain.errors",
        "tornado_proxy.domain.units",
        "tornado_proxy.app",
    }


@functools.cache
def list_modules() -> dict[str, Path]:
    """Return the path of each module of the package by its dotted name; `__init__` files have the package's name."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def list_imports(module: str) -> Iterator[str]:
    """Yield the modules of the package that `module` imports, at any depth of its code."""
    return read_imports(list_modules()[module].read_text("utf-8"))


def read_imports(source: str) -> Iterator[str]:
    """Yield the modules of the package that Python `source` imports, at any depth."""
    modules = list_modules()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from package import name` imports a module if there is one of this name, else a name of `package`.
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module or "" for name in submodules]
        else:
            continue
        yield from (name for name in names if name in modules)
