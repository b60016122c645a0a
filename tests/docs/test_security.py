"""docs/security.md names a test for each promise, and each test exists."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.docs.pages import DOCS, code_spans, rows
from tests.harness import ROOT

PAGE = DOCS / "security.md"
NAMED = sorted({span for span in code_spans(PAGE) if "::" in span})


@functools.cache
def list_tests(path: str) -> frozenset[str]:
    """Return the names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


@pytest.mark.parametrize("named", NAMED)
def test_named_test_exists(named: str) -> None:
    path, _, name = named.partition("::")

    assert name in list_tests(path)


def test_each_promise_has_a_test() -> None:
    promises = [cells for cells in rows(PAGE) if cells[0].endswith(".")]

    assert len(promises) >= 30
    assert [promise for promise, tests in promises if not re.fullmatch(r"`tests/\S+`(, `tests/\S+`)*", tests)] == []
