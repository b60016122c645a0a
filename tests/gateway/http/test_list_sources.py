"""A list of an account with several keys is put together from those of each key."""

from __future__ import annotations

from typing import Any

import pytest

from tests import harness
from tests.gateway.fakes import Gateway, make_project, make_snapshot, request_head
from tornado_proxy.domain.identity import KeyId, ProjectProvider, ProviderKey, Secret
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.http.list_sources import find_list_accesses, make_list_sources

KEYS = tuple(ProviderKey(name, Secret(f"sk-{name}")) for name in ("a", "b", "c"))
MADE_WITH = {f"batch_{key.name}": KeyId(key.name, key.fingerprint, own=True) for key in KEYS}
GONE = KeyId("gone", "0123456789ab", own=True)


def context_of(query: str = "", path: str = "/anthropic/v1/messages/batches") -> RequestContext[Any]:
    project = make_project(providers={"anthropic": ProjectProvider(KEYS)})
    gateway = Gateway(make_snapshot(projects=[project]))
    return gateway.admission.authenticate(gateway.snapshot, request_head(path + query, method="GET"))


def shown(query: str = "", cursor: KeyId | None = None, visible: frozenset[str] | None = None) -> list[tuple[str, str]]:
    """Return the key and the target of each source, and check which objects it shows."""
    context = context_of(query)
    accesses = find_list_accesses(context, cursor)
    made_with = {**MADE_WITH, "batch_gone": GONE}
    sources = make_list_sources(context, accesses, (), made_with, visible)
    return [
        (
            source.request.key_headers[0][1].reveal() + source.request.url.partition("/batches")[2],
            " ".join(name for name in (*made_with, "batch_other") if name in source.visible),
        )
        for source in sources
    ]


def test_each_object_is_shown_in_the_list_of_the_key_that_made_it() -> None:
    assert shown("?limit=5") == [
        ("sk-a?limit=5", "batch_a batch_other"),
        ("sk-b?limit=5", "batch_b"),
        ("sk-c?limit=5", "batch_c"),
    ]


def test_shared_account_shows_objects_of_the_project_only() -> None:
    assert shown(visible=frozenset({"batch_a", "batch_b", "batch_c", "batch_gone"}))[0] == ("sk-a", "batch_a")


@pytest.mark.parametrize(
    ("query", "targets"),
    [
        pytest.param("?limit=5&after_id=batch_b", ["sk-b?limit=5&after_id=batch_b", "sk-c?limit=5"], id="forwards"),
        pytest.param("?before_id=batch_b", ["sk-b?before_id=batch_b"], id="backwards"),
    ],
)
def test_list_continues_with_the_key_of_its_cursor(query: str, targets: list[str]) -> None:
    assert [target for target, _ in shown(query, MADE_WITH["batch_b"])] == targets


def test_one_key_and_other_requests_need_no_sources() -> None:
    gateway = Gateway(make_snapshot())
    head = request_head("/anthropic/v1/messages/batches", method="GET")
    context = gateway.admission.authenticate(gateway.snapshot, head)
    assert context.caller.project_id == harness.PROJECT

    assert find_list_accesses(context, None) == ()
    assert find_list_accesses(context_of(path="/anthropic/v1/models"), None) == ()
