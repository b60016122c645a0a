"""The cost of one request: its own caller reads it by our id or the provider's, and can wait until it is final."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import OPENAI_KEY, OTHER_PROJECT, PROJECT, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.harness import mint_for_other_project as mint_other
from tornado_proxy.simulator import Simulator, running_simulator

MODEL = "gpt-4o-mini"
ID_HEADER = "Llm-Proxy-Request-Id"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with (
        running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as url,
        running_proxy(tmp_path_factory.mktemp("request_cost"), url) as running,
    ):
        yield running


def respond(proxy: ProxyProcess, token: str | None = None, **members: Any) -> httpx.Response:
    response = httpx.post(
        f"{proxy.base_url}/openai/v1/responses",
        json={"model": MODEL, "input": "hi", **members},
        headers={"Authorization": f"Bearer {token or mint()}", "X-Meshagent-Annotation-Team": "search"},
        timeout=TIMEOUT_S,
    )
    assert response.status_code == 200, response.text
    return response


def find(
    proxy: ProxyProcess, request_id: str, token: str | None = None, project: str = PROJECT, **query: str
) -> httpx.Response:
    return httpx.get(
        f"{proxy.base_url}/accounts/projects/{project}/llm-proxy/requests/{request_id}",
        params=query,
        headers={"Authorization": f"Bearer {token or mint()}"},
        timeout=TIMEOUT_S,
    )


def test_caller_reads_the_line_items_of_the_request_just_made(proxy: ProxyProcess) -> None:
    response = respond(proxy)
    usage = response.json()["usage"]

    cost = find(proxy, response.headers[ID_HEADER], wait="5").json()

    (request,) = cost["requests"]
    # gpt-4o-mini: 0.15 and 0.60 USD a million tokens.
    expected = (usage["input_tokens"] * Decimal("0.15") + usage["output_tokens"] * Decimal("0.60")) / 1_000_000
    assert (cost["final"], cost["currency"], request["basis"]) == (True, "USD", "reported")
    assert Decimal(request["subtotal"]) == expected
    assert sum(Decimal(item["amount"]) for item in request["line_items"]) == Decimal(cost["total"])
    assert (request["annotations"], request["participant"]) == ({"team": "search"}, "ada")


def test_provider_ids_of_request_and_response_find_it_too(proxy: ProxyProcess) -> None:
    response = respond(proxy)
    own_id = response.headers[ID_HEADER]

    for other_id in (response.headers["x-request-id"], response.json()["id"]):
        (request,) = find(proxy, other_id, wait="5").json()["requests"]
        assert request["request_id"] == own_id


def test_foreign_and_unknown_ids_get_the_same_404(proxy: ProxyProcess) -> None:
    of_ada = respond(proxy).headers[ID_HEADER]
    assert find(proxy, of_ada, wait="5").status_code == 200

    responses = [
        find(proxy, of_ada, mint(name="eve")),
        find(proxy, of_ada, mint_other(), OTHER_PROJECT),
        find(proxy, "req_" + "0" * 32),
        find(proxy, "%00%C3%A9"),
        find(proxy, "x" * 300),
    ]

    errors = [response.json()["error"] for response in responses]
    assert {response.status_code for response in responses} == {404}
    assert all(error == errors[0] for error in errors)


def test_token_of_another_project_is_refused(proxy: ProxyProcess) -> None:
    assert find(proxy, "req_1", mint_other()).status_code == 403


def test_wait_returns_when_a_running_response_has_ended(proxy: ProxyProcess) -> None:
    url = f"{proxy.base_url}/openai/v1/responses"
    body = {"model": MODEL, "input": "[[sim delay=0.3]] hi", "stream": True}
    found: list[httpx.Response] = []
    headers = {"Authorization": f"Bearer {mint()}"}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=TIMEOUT_S) as stream:
        request_id = stream.headers[ID_HEADER]
        waiting = threading.Thread(target=lambda: found.append(find(proxy, request_id, wait="10")))
        waiting.start()
        stream.read()
    waiting.join(TIMEOUT_S)

    assert found[0].json()["final"] is True


def test_pending_cost_is_final_after_its_settlement(proxy: ProxyProcess) -> None:
    response = respond(proxy, background=True)
    request_id = response.headers[ID_HEADER]

    cost = find(proxy, request_id, wait="10").json()

    assert (cost["final"], cost["requests"][0]["basis"]) == (True, "reported")
    assert Decimal(cost["total"]) > 0


@pytest.mark.parametrize("query", [{"wait": "11"}, {"wait": "-1"}, {"wait": "nan"}, {"other": "1"}])
def test_invalid_parameter_is_rejected(proxy: ProxyProcess, query: dict[str, str]) -> None:
    assert find(proxy, "req_1", **query).status_code == 400


def test_other_methods_are_rejected(proxy: ProxyProcess) -> None:
    response = httpx.post(
        f"{proxy.base_url}/accounts/projects/{PROJECT}/llm-proxy/requests/req_1",
        headers={"Authorization": f"Bearer {mint()}"},
        timeout=TIMEOUT_S,
    )

    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
