from __future__ import annotations

import pytest

from tornado_proxy.domain.config.document import Document, Path, format_path, list_children, read_section


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("listen",), "listen"),
        (("models", 3, "input"), "models[3].input"),
        (("models", "gpt-5.4", "rates", 0), 'models."gpt-5.4".rates[0]'),
        ((0, "name"), "[0].name"),
    ],
)
def test_path_is_shown_in_dotted_form(path: Path, text: str) -> None:
    assert format_path(path) == text


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param(("a", "b"), 7, id="line of the value"),
        pytest.param(("a", "c"), 3, id="line of the enclosing mapping"),
        pytest.param(("a", "b", 4, "x"), 7, id="line of the nearest enclosing value"),
        pytest.param(("z",), 1, id="line of the document"),
    ],
)
def test_fault_has_nearest_line(path: Path, line: int) -> None:
    document = Document("f.yaml", {}, {(): 1, ("a",): 3, ("a", "b"): 7})

    assert str(document.fault(path, "is wrong")) == f"f.yaml:{line}: {format_path(path)}: is wrong"


def test_fault_of_document_without_lines_concerns_the_file() -> None:
    assert str(Document("f.yaml", {}).fault((), "is empty")) == "f.yaml: is empty"


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"a": None}, {"a": ["b"]}, [], "text", None])
def test_missing_or_mistyped_section_is_empty(content: object) -> None:
    assert read_section(content, "a") == {}


def test_section_is_the_mapping_of_that_name() -> None:
    assert read_section({"a": {"b": 1}}, "a") == {"b": 1}


@pytest.mark.parametrize(
    ("value", "children"),
    [({"a": 1, "b": 2}, [("a", 1), ("b", 2)]), (["x", "y"], [(0, "x"), (1, "y")]), ("text", []), (None, [])],
)
def test_children_of_mappings_and_lists(value: object, children: list[tuple[str | int, object]]) -> None:
    assert list(list_children(value)) == children
