"""The tools that a request declares, those of namespaces included."""

from __future__ import annotations

import pytest

from tornado_proxy.providers.openai.responses.declared_tools import flatten_tools, tool_kind


def test_tools_of_a_namespace_are_tools_of_the_request() -> None:
    inner = {"type": "code_interpreter", "container": "cntr_1"}
    outer = {"type": "namespace", "tools": [5, inner]}

    assert flatten_tools(["web_search", outer, None]) == (outer, inner)


@pytest.mark.parametrize(
    ("stated", "kind"),
    [
        ("web_search_preview_2025_03_11", "web_search_preview"),
        ("code_interpreter", "code_interpreter"),
        ("web_search_2025", "web_search_2025"),
        (5, "5"),
    ],
)
def test_kind_of_a_tool_has_no_date(stated: object, kind: str) -> None:
    assert tool_kind({"type": stated}) == kind
