from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from tornado_proxy.domain import errors
from tornado_proxy.domain.config.fault import Fault
from tornado_proxy.domain.errors import ConfigError, MethodNotAllowed, ProxyError, RequestError, UpstreamError


def list_tree(root: type[ProxyError], depth: int = 0) -> Iterator[tuple[type[ProxyError], int]]:
    """Yield the classes of errors.py with their depth; other packages define errors of their own beside their code."""
    yield root, depth
    for subclass in root.__subclasses__():
        if subclass.__module__ == errors.__name__:
            yield from list_tree(subclass, depth + 1)


def test_tree_in_module_docstring_matches_classes() -> None:
    drawn = re.findall(r"^    ([│ ]*)[├└]── (\w+) ", errors.__doc__ or "", re.MULTILINE)
    depths = {name: len(indent) // 4 + 1 for indent, name in drawn}

    actual = {error.__name__: depth for error, depth in list_tree(ProxyError) if error is not ProxyError}
    assert depths == actual


def test_statuses_in_module_docstring_match_classes() -> None:
    drawn = re.findall(r"── (\w+) +(\d{3})(?: (\w+))?$", errors.__doc__ or "", re.MULTILINE)

    assert len(drawn) > 10
    for name, status, code in drawn:
        error: type[RequestError] = getattr(errors, name)
        assert (str(error.status), error.code) == (status, code or error.code), name


@pytest.mark.parametrize("error", [error for error, _ in list_tree(RequestError)], ids=lambda error: error.__name__)
def test_status_in_docstring_matches_class(error: type[RequestError]) -> None:
    documented = re.match(r"(\d{3}):", inspect.getdoc(error) or "")

    assert documented is None or int(documented[1]) == error.status
    assert re.fullmatch(r"[a-z_]+", error.code)


def test_error_carries_message_code_and_param() -> None:
    error = RequestError("say this", code="word", param="model")

    assert (str(error), error.message, error.code, error.param) == ("say this", "say this", "word", "model")
    assert MethodNotAllowed("no", ("GET",)).allowed == ("GET",)
    assert UpstreamError("broken off").request_sent
    assert not UpstreamError("never sent", request_sent=False).request_sent


def test_config_error_lists_every_fault_in_file_order() -> None:
    error = ConfigError(
        [Fault("b.yaml", 2, "x", "two"), Fault("a.yaml", 9, "", "one"), Fault("b.yaml", 1, "y", "first")]
    )

    assert str(error) == "a.yaml:9: one\nb.yaml:1: y: first\nb.yaml:2: x: two"
