from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from tornado_proxy.domain import errors
from tornado_proxy.domain.errors import ConfigError, Fault, MethodNotAllowed, ProxyError, RequestError, UpstreamError


def _tree(root: type[ProxyError], depth: int = 0) -> Iterator[tuple[type[ProxyError], int]]:
    """The classes of the file; another room's own error stands where it is raised."""
    yield root, depth
    for one in root.__subclasses__():
        if one.__module__ == errors.__name__:
            yield from _tree(one, depth + 1)


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    drawn = re.findall(r"^    ([│ ]*)[├└]── (\w+) ", errors.__doc__ or "", re.MULTILINE)
    depths = {name: len(indent) // 4 + 1 for indent, name in drawn}

    # RequestError is how three branches share their answer; the drawing leaves it out.
    real = {one.__name__: depth - issubclass(one, RequestError) for one, depth in _tree(ProxyError)}
    assert depths == {name: depth for name, depth in real.items() if name not in ("ProxyError", "RequestError")}


@pytest.mark.parametrize("one", [one for one, _ in _tree(RequestError)], ids=lambda one: one.__name__)
def test_an_error_says_its_status_in_its_own_words(one: type[RequestError]) -> None:
    documented = re.match(r"(\d{3}):", inspect.getdoc(one) or "")

    assert documented is None or int(documented[1]) == one.status
    assert re.fullmatch(r"[a-z_]+", one.code)


def test_an_error_carries_what_its_answer_needs() -> None:
    error = RequestError("say this", code="word", param="model")

    assert (str(error), error.message, error.code, error.param) == ("say this", "say this", "word", "model")
    assert MethodNotAllowed("no", ("GET",)).allowed == ("GET",)
    assert UpstreamError("gone").request_sent
    assert not UpstreamError("never left", request_sent=False).request_sent


def test_a_config_error_tells_every_fault_in_the_order_of_the_file() -> None:
    error = ConfigError(
        [Fault("b.yaml", 2, "x", "two"), Fault("a.yaml", 9, "", "one"), Fault("b.yaml", 1, "y", "first")]
    )

    assert str(error) == "a.yaml:9: one\nb.yaml:1: y: first\nb.yaml:2: x: two"
