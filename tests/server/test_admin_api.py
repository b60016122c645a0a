"""Projects, usage and access keys on the admin port, and what several processes of one ledger answer."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import (
    ADMIN_TOKEN,
    ANTHROPIC_KEY,
    KEY_ID,
    OPENAI_KEY,
    OTHER_KEY_ID,
    OTHER_PROJECT,
    PROJECT,
    SIGNING_SECRET,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    mint_for_other_project,
    running_proxy,
)
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT_RESPONSE, post_chat

PROJECTS: list[dict[str, Any]] = [
    {
        "id": PROJECT,
        "name": "first",
        "api_keys": [
            {"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}},
            {"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}, "disabled": True},
        ],
        "members": [{"user": "ada@example.com", "permissions": ["can_use_llm_proxy"], "admin": True}],
        "providers": {
            "openai": {
                "api_key": {"env": "TEST_ANTHROPIC_KEY"},
                "base_url": "https://eu.api.openai.com",
                "region": "eu",
            }
        },
        "surcharge_rate": "0.10",
        "labels": {"cost_center": "4711"},
        "allowed_objects": ["file_b", "file_a"],
    }
]


#: One client for all requests, because each new one reads the certificate authorities; it keeps no connection.
CLIENT = httpx.Client(timeout=TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0))


def send(proxy: ProxyProcess, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
    all_headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    content = None if body is None else json.dumps(body)
    return CLIENT.request(method, proxy.admin_url + path, headers=all_headers, content=content)


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_projects_are_shown_with_masked_secrets(provider: ReplayProvider, tmp_path: Path) -> None:
    with running_proxy(tmp_path, provider.url, projects=PROJECTS) as proxy:
        listed = send(proxy, "GET", "/v1/projects")
        shown = send(proxy, "GET", f"/v1/projects/{PROJECT}")
        unknown = send(proxy, "GET", f"/v1/projects/{OTHER_PROJECT}")

    assert shown.json() == {
        "id": PROJECT,
        "name": "first",
        "api_keys": [
            {"id": KEY_ID, "secret": "****", "disabled": False},
            {"id": OTHER_KEY_ID, "secret": "****", "disabled": True},
        ],
        "members": [
            {
                "user": "ada@example.com",
                "group": None,
                "issuer": None,
                "permissions": ["can_use_llm_proxy"],
                "admin": True,
            }
        ],
        "providers": {
            "openai": {
                "keys": [{"name": "default", "secret": "****2pL6", "provider_ids": {}}],
                "base_url": "https://eu.api.openai.com",
                "region": "eu",
            }
        },
        "models": None,
        "surcharge_rate": "0.10",
        "on_client_disconnect": None,
        "labels": {"cost_center": "4711"},
        "allowed_objects": ["file_a", "file_b"],
    }
    assert listed.json() == {"projects": [shown.json()]}
    assert code_of(unknown) == (404, "not_found")
    for secret in (SIGNING_SECRET, OPENAI_KEY, ANTHROPIC_KEY):
        assert secret not in listed.text


@pytest.fixture(scope="module")
def used(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server with three requests: two of ada in one project, one of eve in another."""
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    with running_proxy(tmp_path_factory.mktemp("used"), provider.url) as proxy:
        for token in (mint(name="ada"), mint(name="ada"), mint_for_other_project("eve")):
            assert post_chat(proxy, token=token).status_code == 200
        proxy.read_records(count=3)
        yield proxy


def usage(proxy: ProxyProcess, query: str) -> dict[str, Any]:
    response = send(proxy, "GET", f"/v1/usage?{query}")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


# One request: 10 input tokens at 0.15 and 5 output tokens at 0.60 USD per million, and 5 % on top.
def test_usage_covers_all_projects_or_one(used: ProxyProcess) -> None:
    everything, one = usage(used, ""), usage(used, f"project={OTHER_PROJECT}")
    client_port = httpx.get(
        f"{used.base_url}/accounts/projects/{OTHER_PROJECT}/llm-proxy/usage",
        headers={"Authorization": f"Bearer {mint_for_other_project('eve')}"},
        timeout=TIMEOUT_S,
    )

    assert (everything["summary"]["requests"], everything["summary"]["total"]) == (3, "0.000014175")
    assert (one["summary"]["requests"], one["summary"]["total"]) == (1, "0.000004725")
    assert one == client_port.json()


def test_usage_of_a_project_is_found_by_its_name(used: ProxyProcess) -> None:
    by_id = usage(used, f"project={PROJECT}&rows=groups&group_by=project")

    assert usage(used, "project=first&rows=groups&group_by=project") == by_id
    assert by_id["summary"]["requests"] == 2


@pytest.mark.parametrize("route", ["usage", "access-keys", "budgets"])
def test_list_of_an_unknown_project_is_refused(used: ProxyProcess, route: str) -> None:
    response = send(used, "GET", f"/v1/{route}?project=frist")

    assert code_of(response) == (404, "not_found")
    assert response.json()["error"]["param"] == "project"
    assert response.json()["error"]["message"] == (
        "no project has the id or name 'frist'; GET /v1/projects on the admin port lists them"
    )


def test_removed_project_has_usage_and_access_keys_by_its_id(provider: ReplayProvider, tmp_path: Path) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    with running_proxy(tmp_path, provider.url) as proxy:
        assert post_chat(proxy, token=mint_for_other_project("eve")).status_code == 200
        assert send(proxy, "POST", "/v1/access-keys", {**NEW_KEY, "project_id": OTHER_PROJECT}).status_code == 201
    with running_proxy(tmp_path, provider.url, projects=[PROJECTS[0]]) as proxy:
        removed = usage(proxy, f"project={OTHER_PROJECT}")
        keys = send(proxy, "GET", f"/v1/access-keys?project={OTHER_PROJECT}").json()["access_keys"]
        budgets = send(proxy, "GET", f"/v1/budgets?project={OTHER_PROJECT}")

    assert removed["summary"]["requests"] == 1
    assert [key["project_id"] for key in keys] == [OTHER_PROJECT]
    assert code_of(budgets) == (404, "not_found")


def test_usage_is_grouped_by_project(used: ProxyProcess) -> None:
    rows = usage(used, "group_by=project,participant&rows=groups")["usage"]

    assert [(row["project"], row["participant"], row["requests"]) for row in rows] == [
        (PROJECT, "ada", 2),
        (OTHER_PROJECT, "eve", 1),
    ]


def test_usage_has_pages_and_csv(used: ProxyProcess) -> None:
    first = send(used, "GET", "/v1/usage?group_by=project&rows=groups&limit=1")
    target = re.fullmatch(r'<(/v1/usage\?.*)>; rel="next"', first.headers["link"])
    assert target is not None
    second = send(used, "GET", target[1])
    table = send(used, "GET", "/v1/usage?group_by=project&rows=groups", Accept="text/csv")

    assert [page.json()["usage"][0]["project"] for page in (first, second)] == [PROJECT, OTHER_PROJECT]
    assert second.json()["next_cursor"] is None
    assert table.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert [row["requests"] for row in csv.DictReader(io.StringIO(table.text))] == ["2", "1"]


@pytest.mark.parametrize("query", ["projct=x", "project=a&project=b", "basis=x", "limit=0", "cursor=x", "group_by=x"])
def test_faulty_usage_parameters_are_400(query: str, used: ProxyProcess) -> None:
    assert code_of(send(used, "GET", f"/v1/usage?{query}")) == (400, "bad_request")


def test_client_port_does_not_group_by_project(used: ProxyProcess) -> None:
    response = httpx.get(
        f"{used.base_url}/accounts/projects/{PROJECT}/llm-proxy/usage?group_by=project",
        headers={"Authorization": f"Bearer {mint()}"},
        timeout=TIMEOUT_S,
    )

    assert code_of(response) == (400, "bad_request")


def chat_status(proxy: ProxyProcess, secret: str) -> int:
    return int(post_chat(proxy, token=secret).status_code)


NEW_KEY = {"name": "ci", "project_id": PROJECT}


def test_access_key_is_created_used_rotated_and_revoked(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    created = send(proxy, "POST", "/v1/access-keys", {**NEW_KEY, "labels": {"team": "a"}})
    key, secret = created.json(), created.json()["secret"]
    path = created.headers["location"]

    assert (created.status_code, path) == (201, f"/v1/access-keys/{key['id']}")
    assert re.fullmatch(r"tp_[A-Za-z0-9_-]{43}", secret)
    assert chat_status(proxy, secret) == 200  # at once: the process that made it knows it
    assert send(proxy, "GET", path).json() == {name: value for name, value in key.items() if name != "secret"}
    assert key["id"] in {
        one["id"] for one in send(proxy, "GET", f"/v1/access-keys?project={PROJECT}").json()["access_keys"]
    }
    by_name = send(proxy, "GET", "/v1/access-keys?project=first").json()["access_keys"]
    assert [one["id"] for one in by_name] == [key["id"]]
    assert send(proxy, "GET", f"/v1/access-keys?project={OTHER_PROJECT}").json() == {"access_keys": []}

    rotated = send(proxy, "POST", f"{path}/rotate", {"grace_s": 3600}).json()
    assert (rotated["id"], rotated["secret"] != secret) == (key["id"], True)
    assert [chat_status(proxy, one) for one in (secret, rotated["secret"])] == [200, 200]
    ended = send(proxy, "POST", f"{path}/rotate", {"grace_s": 0}).json()
    assert [chat_status(proxy, one) for one in (secret, rotated["secret"], ended["secret"])] == [401, 401, 200]

    revoked = send(proxy, "DELETE", path)
    assert (revoked.status_code, revoked.json()["revoked_at"] is not None) == (200, True)
    assert chat_status(proxy, ended["secret"]) == 401
    assert code_of(send(proxy, "DELETE", path)) == (400, "bad_request")
    lines = [json.loads(line) for line in proxy.wait_for_log_lines('"message":"admin"', 4) if key["id"] in line]
    assert [line["action"] for line in lines] == [
        *("access key created", "access key rotated", "access key rotated", "access key revoked")
    ]
    assert lines[0]["new"]["labels"] == {"team": "a"}
    assert not [one for one in (secret, rotated["secret"], ended["secret"]) if one in "".join(proxy.log)]


def test_key_that_was_made_elsewhere_is_imported(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    secret = "sk-of-another-gateway-0123456789abcdef"
    body = {**NEW_KEY, "name": "old", "sha256": hashlib.sha256(secret.encode()).hexdigest()}

    imported = send(proxy, "POST", "/v1/access-keys/import", body)

    assert imported.status_code == 201
    assert "secret" not in imported.json()
    assert chat_status(proxy, secret) == 200
    assert code_of(send(proxy, "POST", "/v1/access-keys/import", body)) == (400, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/access-keys", None, (400, "invalid_body")),
        ("POST", "/v1/access-keys", [], (400, "invalid_body")),
        ("POST", "/v1/access-keys", {"name": "x"}, (400, "invalid_body")),
        ("POST", "/v1/access-keys", {**NEW_KEY, "nmae": "x"}, (400, "invalid_body")),
        ("POST", "/v1/access-keys", {**NEW_KEY, "project_id": "unknown"}, (400, "bad_request")),
        ("POST", "/v1/access-keys", {**NEW_KEY, "expires_at": "2020-01-01T00:00:00Z"}, (400, "bad_request")),
        ("POST", "/v1/access-keys/import", {**NEW_KEY, "sha256": "xyz"}, (400, "bad_request")),
        ("POST", "/v1/access-keys/ak_none/rotate", {"grace_s": -1}, (400, "bad_request")),
        ("POST", "/v1/access-keys/ak_none/rotate", None, (404, "not_found")),
        ("GET", "/v1/access-keys/ak_none", None, (404, "not_found")),
        ("DELETE", "/v1/access-keys/ak_none", None, (404, "not_found")),
        ("GET", "/v1/access-keys/import", None, (405, "method_not_allowed")),
        ("PUT", "/v1/access-keys", NEW_KEY, (405, "method_not_allowed")),
        ("GET", "/v1/access-keys?dry_run=1", None, (400, "bad_request")),
    ],
)
def test_faulty_requests_for_access_keys_change_nothing(
    method: str, path: str, body: object, expected: tuple[int, str], proxy: ProxyProcess
) -> None:
    before = send(proxy, "GET", "/v1/access-keys").text

    assert code_of(send(proxy, method, path, body)) == expected
    assert send(proxy, "GET", "/v1/access-keys").text == before


def test_dry_run_checks_everything_and_changes_nothing(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    created = send(proxy, "POST", "/v1/access-keys", {**NEW_KEY, "name": "dry"}).json()
    path, digest = f"/v1/access-keys/{created['id']}", hashlib.sha256(created["secret"].encode()).hexdigest()
    before = send(proxy, "GET", "/v1/access-keys").text

    for method, target, body in (
        ("POST", "/v1/access-keys", NEW_KEY),
        ("POST", "/v1/access-keys/import", {**NEW_KEY, "sha256": "ab" * 32}),
        ("POST", f"{path}/rotate", None),
        ("DELETE", path, None),
    ):
        response = send(proxy, method, f"{target}?dry_run=1", body, Idempotency_Key="dry")
        assert (response.status_code, response.json()) == (200, {"dry_run": True})
    # A rule that only the database knows: the secret is that of another key.
    taken = send(proxy, "POST", "/v1/access-keys/import?dry_run=1", {**NEW_KEY, "sha256": digest})

    assert code_of(taken) == (400, "bad_request")
    assert send(proxy, "GET", "/v1/access-keys").text == before
    assert chat_status(proxy, created["secret"]) == 200
    assert send(proxy, "POST", f"{path}/rotate", None, Idempotency_Key="dry").status_code == 200  # not used yet


def test_idempotency_key_makes_a_change_once(proxy: ProxyProcess) -> None:
    first = send(proxy, "POST", "/v1/access-keys", {**NEW_KEY, "name": "once"}, Idempotency_Key="order 66")
    again = send(proxy, "POST", "/v1/access-keys", {**NEW_KEY, "name": "once"}, Idempotency_Key="order 66")
    rotation = send(proxy, "POST", f"{first.headers['location']}/rotate", None, Idempotency_Key="order 66")
    other = send(proxy, "POST", "/v1/access-keys", {**NEW_KEY, "name": "once"}, Idempotency_Key="order 67")

    assert (first.status_code, other.status_code) == (201, 201)
    for refused in (again, rotation):
        assert code_of(refused) == (409, "idempotency_key_used")
        assert first.json()["id"] in refused.json()["error"]["message"]
    names = [key["name"] for key in send(proxy, "GET", "/v1/access-keys").json()["access_keys"]]
    assert names.count("once") == 2


def test_ledger_that_cannot_be_written_does_not_stop_a_reload_of_this_process(
    provider: ReplayProvider, tmp_path: Path
) -> None:
    with running_proxy(tmp_path, provider.url) as proxy:
        with contextlib.closing(sqlite3.connect(proxy.ledger, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            reloaded = send(proxy, "POST", "/reload")
        generation = send(proxy, "POST", "/reload?dry_run=1").json()["generation"]

    assert code_of(reloaded) == (503, "ledger_unavailable")
    assert "this process has reloaded" in reloaded.json()["error"]["message"]
    assert generation == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "caf\u00e9"])
def test_malformed_idempotency_key_is_400(key: str, proxy: ProxyProcess) -> None:
    response = httpx.post(
        f"{proxy.admin_url}/v1/access-keys",
        headers=[(b"Authorization", f"Bearer {ADMIN_TOKEN}".encode()), (b"Idempotency-Key", key.encode("latin-1"))],
        content=json.dumps(NEW_KEY),
        timeout=TIMEOUT_S,
    )

    assert code_of(response) == (400, "bad_request")
