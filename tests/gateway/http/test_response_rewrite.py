"""Whole response bodies: lists are cut, URLs lead to the proxy, short-lived keys become ours; all others pass."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests import harness
from tests.gateway.fakes import Gateway, make_snapshot, request_head
from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.gateway.http.response_rewrite import WholeBodyEdit, make_rewrite

BASE_URL = "https://llm.example.com/anthropic"


def rewritten(gateway: Gateway, method: str, target: str, body: Any, **head: Any) -> Any:
    """Return the client's view of a JSON response `body`, None if it passes unchanged."""
    context = gateway.admission.authenticate(gateway.snapshot, request_head(target, method=method, **head))
    request = json.dumps(REQUESTS.get(target)).encode() if method == "POST" else b""
    admitted = asyncio.run(gateway.admit(context, request, "req_1"))
    edit = make_rewrite(admitted, lambda: BASE_URL)
    if edit is None:
        return None
    data = json.dumps(body).encode()
    return json.loads(edit.feed(data[:7]) + edit.feed(data[7:]) + edit.close())


MESSAGE = {"model": "claude-haiku-4-5", "max_tokens": 1, "messages": []}
REQUESTS = {
    "/openai/v1/chat/completions": {"model": "gpt-4o-mini", "messages": []},
    "/openai/v1/realtime/client_secrets": {"session": {"type": "realtime", "model": "gpt-realtime"}},
    "/anthropic/v1/messages/batches": {"requests": [{"custom_id": "a", "params": MESSAGE}]},
}


def test_whole_body_is_held_until_it_is_complete_and_rewritten_in_order() -> None:
    edit = WholeBodyEdit([lambda body: body + b"1", lambda body: body + b"2"])

    assert (edit.feed(b"a"), edit.feed(b"b"), edit.close()) == (b"", b"", b"ab12")


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/openai/v1/chat/completions"), ("GET", "/openai/v1/models/gpt-4o-mini")],
)
def test_response_of_other_endpoints_passes_unchanged(method: str, target: str) -> None:
    assert rewritten(Gateway(make_snapshot()), method, target, {}) is None


MODELS = {"object": "list", "data": [{"id": "gpt-4o-mini"}, {"id": "gpt-next"}, {"id": "gpt-4o"}]}


@pytest.mark.parametrize(
    ("head", "ids"),
    [
        pytest.param({}, ["gpt-4o-mini", "gpt-4o"], id="models with a price"),
        pytest.param({"token": harness.mint(models=["openai/gpt-4o"])}, ["gpt-4o"], id="granted by the token"),
        pytest.param({"token": harness.mint_for_other_project()}, ["gpt-4o-mini"], id="granted to the project"),
    ],
)
def test_model_list_shows_what_the_caller_may_use(head: dict[str, Any], ids: list[str]) -> None:
    shown = rewritten(Gateway(make_snapshot()), "GET", "/openai/v1/models", MODELS, **head)

    assert [entry["id"] for entry in shown["data"]] == ids


def test_model_list_of_the_provider_passes_unchanged_if_the_configuration_says_so() -> None:
    gateway = Gateway(make_snapshot(models_list="provider"))

    assert rewritten(gateway, "GET", "/openai/v1/models", MODELS) is None


def test_list_of_objects_is_cut_and_its_urls_lead_here() -> None:
    gateway = Gateway(make_snapshot())

    async def own_batches(*_: str) -> frozenset[str]:
        return frozenset({"batch_2"})

    gateway.ledger.owned_by = own_batches  # type: ignore[method-assign]
    results = "https://api.anthropic.com/v1/messages/batches/{}/results"
    entries = [{"id": name, "results_url": results.format(name)} for name in ("batch_1", "batch_2", "batch_3")]
    body = {"data": entries, "has_more": False}  # owned_list.py writes the cursors

    shown = rewritten(gateway, "GET", "/anthropic/v1/messages/batches", body)

    url = f"{BASE_URL}/v1/messages/batches/batch_2/results"
    assert shown["data"] == [{"id": "batch_2", "results_url": url}]


def test_short_lived_key_is_replaced_by_one_that_opens_the_same_session() -> None:
    gateway = Gateway(make_snapshot())
    expires_at = datetime.now(UTC) + timedelta(minutes=10)
    body = {"value": "ek_of_the_provider_0123456789", "expires_at": int(expires_at.timestamp())}

    shown = rewritten(gateway, "POST", "/openai/v1/realtime/client_secrets", body)

    assert shown["expires_at"] == body["expires_at"]
    assert "of_the_provider" not in shown["value"]
    caller = gateway.snapshot.authenticator.authenticate(shown["value"], datetime.now(UTC), session_keys=True)
    assert caller.session is not None
    assert caller.session.provider_key.reveal() == body["value"]
    assert caller.session.query == "model=gpt-realtime"
    assert (caller.participant, caller.project_id) == ("ada", harness.PROJECT)


def test_body_above_eight_mib_is_not_held() -> None:
    edit = WholeBodyEdit([])
    edit.feed(b"x" * (8 * 1024 * 1024))

    with pytest.raises(UpstreamError, match="larger than 8 MiB and cannot be cut to what you may see"):
        edit.feed(b"x")

    assert edit.close() == b""
