import pytest

from tornado_proxy.simulator.model.directives import Directives, ToolCall, read_directives


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("nothing here", Directives(), id="none"),
        pytest.param("a [[sim status=529]] b", Directives(status=529), id="status"),
        pytest.param(
            "[[sim status=429 retry-after=1 times=2]]",
            Directives(status=429, retry_after="1", status_times=2),
            id="several words",
        ),
        pytest.param("[[sim tokens=7]] x [[sim silent]]", Directives(tokens=7, silent=True), id="several directives"),
        pytest.param("[[sim cut=after:10]]", Directives(cut_after=10), id="cut"),
        pytest.param(
            '[[sim tool=run args={"a": [[1, "]]"]]}]]',
            Directives(tools=(ToolCall("run", '{"a": [[1, "]]"]]}'),)),
            id="JSON with brackets and blanks",
        ),
        pytest.param(
            "[[sim tool=a]] [[sim tool=b args={}]]",
            Directives(tools=(ToolCall("a"), ToolCall("b", "{}"))),
            id="two tools",
        ),
        pytest.param('[[sim say="a b"]]', Directives(say="a b"), id="a quoted text"),
        pytest.param("[[sim tokens=many nonsense=1]]", Directives(), id="what cannot be read is passed over"),
        pytest.param("[[sim tokens=5", Directives(tokens=5), id="never closed"),
    ],
)
def test_directives_are_read_from_the_text(text: str, expected: Directives) -> None:
    assert read_directives(text) == expected
