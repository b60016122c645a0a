"""Projects with provider accounts of their own: what they do there does not concern other projects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import mint, running_proxy
from tests.harness import mint_for_other_project as mint_other
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.test_provider_keys import (
    MAIN,
    MESSAGE,
    NAMES,
    SHARED_PROJECT,
    own_project,
    providers_of,
    send,
)
from tests.server.test_reload import reload
from tornado_proxy.simulator import Simulator, running_simulator


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret, name in NAMES.items():
        monkeypatch.setenv(f"KEY_{name.upper()}", secret)


def test_project_that_got_its_own_account_reaches_its_own_objects_alone_in_the_shared_one(
    tmp_path: Path,
) -> None:
    simulator = Simulator()
    batch = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
    with running_simulator(simulator) as url:
        shared = [SHARED_PROJECT, own_project(url, providers={})]
        with running_proxy(tmp_path, url, providers=providers_of(url, MAIN), projects=shared) as proxy:
            batches = "/anthropic/v1/messages/batches"
            foreign, own, later = [
                send(proxy, batches, batch, token=token).json()["id"] for token in (mint(), mint_other(), mint())
            ]
            response = send(proxy, "/v1/responses", {"model": "gpt-5.4", "input": "hi"}, token=mint_other()).json()[
                "id"
            ]
            secret = send(proxy, "/v1/responses", {"model": "gpt-5.4", "input": "mine"}).json()["id"]
            proxy.read_records(count=5)
            accounts = {"anthropic": {"api_key": {"env": "KEY_OWN"}}, "openai": {"api_key": {"env": "KEY_SECOND"}}}
            moved = own_project(url, providers=accounts)
            reload(proxy, providers=providers_of(url, MAIN), projects=[SHARED_PROJECT, moved])

            # The cursor is an object of the shared account, so the list is one of the shared account.
            for cursor, other in (("after_id", foreign), ("before_id", later)):
                listed = send(proxy, f"{batches}?{cursor}={own}", token=mint_other())
                assert listed.status_code == 200
                assert other not in listed.text
            item = {"type": "item_reference", "id": secret}
            body = {"model": "gpt-5.4", "previous_response_id": response, "input": [item]}
            assert send(proxy, "/v1/responses", body, token=mint_other()).status_code == 404
            assert send(proxy, f"{batches}/{own}", token=mint_other()).status_code == 200
    assert not any(secret in str(request.body) for request in simulator.requests)


def test_project_with_its_own_account_neither_settles_nor_cancels_work_of_another_project(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    with running_simulator(Simulator(settle_s=5)) as url:
        own = own_project(provider.url)
        with running_proxy(tmp_path, url, providers=providers_of(url, MAIN), projects=[SHARED_PROJECT, own]) as proxy:
            work = {"model": "gpt-5.4", "input": "hi", "background": True}
            created = send(proxy, "/v1/responses", work)
            object_id = created.json()["id"]
            # The host of the own account states that the work has ended, for nothing.
            usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
            stated = {"id": object_id, "model": "gpt-5.4", "status": "completed", "usage": usage}
            provider.response = ProviderResponse(chunks=(json.dumps(stated).encode(),))

            for method in ("DELETE", "GET"):
                assert send(proxy, f"/v1/responses/{object_id}", method=method, token=mint_other()).status_code == 200

            # The work goes on, and its usage is that of its own account.
            assert send(proxy, f"/v1/responses/{object_id}").json()["status"] in ("queued", "in_progress")
            assert proxy.read_record(created.headers["llm-proxy-request-id"])["basis"] == "pending"
            assert not any("request settled" in line for line in proxy.log)
