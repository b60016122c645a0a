from __future__ import annotations

import pytest

from tornado_proxy.domain.document import Document, Path, format_path


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
def test_a_path_is_written_as_an_operator_reads_it(path: Path, text: str) -> None:
    assert format_path(path) == text


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param(("a", "b"), 7, id="its own line"),
        pytest.param(("a", "c"), 3, id="the line of what holds it"),
        pytest.param(("a", "b", 4, "x"), 7, id="the line of the nearest that has one"),
        pytest.param(("z",), 1, id="the line of the whole"),
    ],
)
def test_a_fault_has_the_nearest_line(path: Path, line: int) -> None:
    document = Document("f.yaml", {}, {(): 1, ("a",): 3, ("a", "b"): 7})

    assert str(document.fault(path, "is wrong")) == f"f.yaml:{line}: {format_path(path)}: is wrong"


def test_a_fault_of_a_document_without_lines_is_that_of_the_file() -> None:
    assert str(Document("f.yaml", {}).fault((), "is empty")) == "f.yaml: is empty"
