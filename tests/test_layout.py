"""The house as docs/architecture.md draws it: a file of the lower floors has its test, and none grows out of hand."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from tests.harness import ROOT

PACKAGE = ROOT / "tornado_proxy"

#: Floors 0 to 2, and metering, which counts money.
_ROOMS = (
    "domain",
    "wire",
    "auth",
    "config",
    "pricing",
    "providers",
    "observability/metrics.py",
    "tasks.py",
    "observability/logs.py",
    "metering/request_meter.py",
)

#: Files that are reached through another one, and the test that does so.
_THROUGH = {
    "config/projects.py": "config/test_loading.py",
    "pricing/book/calculator.py": "pricing/book/test_price_book.py",
    "pricing/lists/import_plan.py": "cli/test_pricing.py",
    "pricing/book/price_file.py": "pricing/book/test_price_book.py",
    "providers/anthropic/complete.py": "providers/anthropic/messages/test_request.py",
    "providers/anthropic/count_tokens.py": "providers/anthropic/messages/test_request.py",
    "providers/openai/chat/reader.py": "providers/openai/chat/test_endpoint.py",
    "providers/openai/shared/response_readers.py": "providers/openai/audio/test_transcription.py",
    "providers/openai/shared/modal_usage.py": "providers/openai/images/test_endpoint.py",
    "providers/openai/responses/hosted_tools.py": "providers/openai/responses/test_endpoint.py",
    "providers/openai/audio/speech_audio.py": "providers/openai/audio/test_speech.py",
    "providers/openai/shared/text_report.py": "providers/openai/chat/test_endpoint.py",
    "providers/openai/audio/transcription.py": "providers/openai/audio/test_transcription.py",
    "providers/openai/audio/transcription_models.py": "providers/openai/audio/test_transcription.py",
    "providers/openai/shared/usage_report.py": "providers/openai/shared/test_text_usage.py",
}

#: Words that say nothing of what a file is for.
_EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools"}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
LOWER = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in _ROOMS]


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def imported_by_tests() -> frozenset[str]:
    """Every module that a test imports, and every name that it takes from one."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("*.py")]
    taken = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return frozenset(name for node in taken for name in (node.module or "", *_names(node)))


def _names(node: ast.ImportFrom) -> list[str]:
    return [f"{node.module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize("source", LOWER, ids=named)
def test_a_file_of_the_lower_floors_has_a_test(source: Path) -> None:
    place = source.relative_to(PACKAGE)
    module = ".".join(("tornado_proxy", *place.with_suffix("").parts))
    through = _THROUGH.get(place.as_posix())

    of_its_name = ROOT / "tests" / place.parent / f"test_{place.name}"
    tested = of_its_name.exists() or module in imported_by_tests() or through is not None
    assert tested, f"{of_its_name.relative_to(ROOT)} is missing; write it, or a line in _THROUGH"
    assert through is None or (ROOT / "tests" / through).exists()


def test_no_line_speaks_of_a_file_that_is_gone() -> None:
    assert set(_THROUGH) - {named(source) for source in LOWER} == set()


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_a_file_says_what_it_is_for_in_few_lines_under_a_name_that_says_it_too(source: Path) -> None:
    text = source.read_text("utf-8")

    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)) or source.name == "__main__.py"
    assert not _EMPTY_NAMES.intersection(part.removesuffix(".py") for part in source.relative_to(PACKAGE).parts)
