"""The REST routes of MeshAgent's clients: the published client, with tokens of a real identity provider."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import httpx2 as httpx
import jwt
import pytest

from tests.harness import (
    KEY_ID,
    OPENAI_KEY,
    OTHER_PROJECT,
    PROJECT,
    SIGNING_SECRET,
    TIMEOUT_S,
    ProxyProcess,
    mint,
    running_proxy,
)
from tests.oauth.real_issuer import RealIssuer, fill_in_pages, running_real_issuer
from tests.server.meshagent_rest_client import RoomException, load_package, make_client
from tornado_proxy.simulator import Simulator, running_simulator

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
USE = ["can_use_llm_proxy"]
UNKNOWN_PROJECT = "99999999-9999-4999-8999-999999999999"
BASE = f"/accounts/projects/{PROJECT}"

#: The redirect URI of the published command line.
CALLBACK = "http://localhost:8765/callback"


@pytest.fixture(scope="module")
def issuer() -> Iterator[RealIssuer]:
    with running_real_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(issuer: RealIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    projects = [
        {
            "id": PROJECT,
            "name": "first",
            "api_keys": [
                {
                    "id": "0d2f7c1a-6a3e-4d55-8b52-3a1f5d9c7e40",
                    "secret": {"env": "TEST_OTHER_SIGNING_SECRET"},
                    "disabled": True,
                },
                {"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}},
            ],
            "members": [
                {"user": "ada@example.com", "permissions": USE},
                {"user": "bob", "admin": True},
                {"user": "eve", "permissions": []},
            ],
            "surcharge_rate": "0.10",
        },
        {"id": OTHER_PROJECT, "name": "other", "members": [{"user": "bob", "permissions": USE}]},
    ]
    login = {"client_id": "cli", "scopes": ["openid", "offline_access", "llm_proxy"]}
    oauth = [
        {"issuer": "https://other.example.com", "audience": "llm-proxy", "clients": ["x"]},
        {"issuer": issuer.url, "audience": "llm-proxy", "clients": ["cli"], "login": login},
    ]
    for project in projects:
        for member in project.get("members", []):  # type: ignore[attr-defined]
            member["issuer"] = issuer.url
    folder = tmp_path_factory.mktemp("accounts")
    with (
        running_simulator(Simulator(keys={"openai": OPENAI_KEY})) as upstream,
        running_proxy(
            folder,
            upstream,
            projects=projects,
            oauth=oauth,
            cors={"allow_origins": ["https://app.test"]},
            state={"keys": {"env": "TEST_STATE_KEYS"}},
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def token_of(issuer: RealIssuer) -> Callable[[str], str]:
    """Return the access token of a user, from one login each."""

    @cache
    def log_in(user: str) -> str:
        return str(issuer.log_in(user)["access_token"])

    return log_in


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    return load_package()


def use_client(package: dict[str, Any], proxy: ProxyProcess, token: str, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return the result of `use(client)` with the published client."""

    async def run() -> Any:
        async with aiohttp.ClientSession() as session:
            return await use(make_client(package, proxy.base_url, token, session))

    return asyncio.run(run())


def send(proxy: ProxyProcess, method: str, path: str, token: str | None, **how: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(
        method, proxy.base_url + path, headers={**headers, **how.pop("headers", {})}, timeout=TIMEOUT_S, **how
    )


def pay(proxy: ProxyProcess, token: str) -> dict[str, Any]:
    """Send an LLM request and return its record."""
    response = send(proxy, "POST", "/openai/v1/chat/completions", token, json=CHAT)
    assert response.status_code == 200, response.text
    return proxy.read_record(response.headers["Llm-Proxy-Request-Id"])


def test_published_client_reads_the_profile_and_projects_of_its_user(
    proxy: ProxyProcess, package: dict[str, Any], token_of: Callable[[str], str]
) -> None:
    async def use(client: Any) -> Any:
        profile = package["User"].model_validate(await client.get_user_profile("me"))
        return profile, await client.whoami(), await client.list_projects(), await client.get_project(PROJECT)

    profile, whoami, page, project = use_client(package, proxy, token_of("ada"), use)

    assert (profile.id, profile.email) == ("ada", "ada@example.com")
    assert (whoami.id, whoami.email, whoami.type, whoami.user) == ("ada", "ada@example.com", "user", profile)
    assert [(item.id, item.name) for item in page.projects] == [(PROJECT, "first")]
    assert project == page.projects[0]


def test_unverified_address_is_an_empty_text_and_only_own_projects_are_listed(
    proxy: ProxyProcess, token_of: Callable[[str], str]
) -> None:
    assert send(proxy, "GET", "/accounts/profiles/me", token_of("bob")).json()["email"] == ""
    for user, names in (("bob", ["first", "other"]), ("eve", ["first"]), ("stranger", [])):
        listed = send(proxy, "GET", "/accounts/projects", token_of(user)).json()["projects"]
        assert [project["name"] for project in listed] == names


def test_published_client_tests_its_own_access(
    proxy: ProxyProcess, package: dict[str, Any], token_of: Callable[[str], str]
) -> None:
    def test(user: str, relation: str, *, resource: tuple[str, str] = ("project", PROJECT)) -> bool:
        async def use(client: Any) -> bool:
            result = await client.test_access(
                project_id=PROJECT,
                subject=package["AccessSubject"](type="user", id="me"),
                resource=package["AccessResource"](type=resource[0], id=resource[1]),
                relation=relation,
            )
            return bool(result.allowed)

        return bool(use_client(package, proxy, token_of(user), use))

    relations = ("llm_proxy_user", "can_use_llm_proxy", "room_creator", "member", "admin", "developer")
    expected = {"ada": [1, 1, 1, 1, 0, 0], "bob": [1, 1, 1, 1, 1, 0], "eve": [0, 0, 0, 1, 0, 0]}
    assert {user: [int(test(user, name)) for name in relations] for user in expected} == expected
    assert not test("ada", "llm_proxy_user", resource=("room", "lab"))
    assert not test("bob", "llm_proxy_user", resource=("project", OTHER_PROJECT))


def test_token_of_a_connected_room_pays_for_requests_as_its_participant(
    proxy: ProxyProcess, package: dict[str, Any], token_of: Callable[[str], str]
) -> None:
    connection = use_client(
        package, proxy, token_of("ada"), lambda client: client.connect_room(project_id=PROJECT, room="lab")
    )

    record = pay(proxy, connection.jwt)
    assert (record["participant"], record["room"], record["project_id"]) == ("ada@example.com", "lab", PROJECT)
    assert (connection.room_name, connection.project_id) == ("lab", PROJECT)
    assert connection.room_url == f"ws{proxy.base_url.removeprefix('http')}/rooms/lab"
    claims = jwt.decode(connection.jwt, SIGNING_SECRET, algorithms=["HS256"])
    assert claims["kid"] == KEY_ID  # the first key is disabled
    assert 86_000 < claims["exp"] - time.time() <= 86_400
    assert connection.jwt not in "".join(proxy.log)


def test_admin_connects_another_participant_and_a_member_itself_only(
    proxy: ProxyProcess, package: dict[str, Any], token_of: Callable[[str], str]
) -> None:
    def connect(user: str, email: str) -> Any:
        return use_client(
            package,
            proxy,
            token_of(user),
            lambda client: client.connect_room(project_id=PROJECT, room="a b", email=email),
        )

    assert pay(proxy, connect("bob", "carl@example.com").jwt)["participant"] == "carl@example.com"
    assert pay(proxy, connect("ada", "ada@example.com").jwt)["room"] == "a b"
    with pytest.raises(package["PermissionDeniedError"], match="only an admin"):
        connect("ada", "carl@example.com")


def test_published_client_mints_tokens_in_both_forms(
    proxy: ProxyProcess, package: dict[str, Any], token_of: Callable[[str], str]
) -> None:
    def mint_with(user: str, **content: Any) -> dict[str, Any]:
        async def use(client: Any) -> str:
            return str(await client.mint_participant_token(PROJECT, **content))

        return pay(proxy, use_client(package, proxy, token_of(user), use))

    grants = [{"name": "room", "scope": "lab"}, {"name": "api", "scope": {"llm": {"models": ["openai/*"]}}}]
    assert mint_with("ada")["participant"] == "ada@example.com"
    assert mint_with("ada", name="ada", room_name="lab", role="agent", api={"llm": {}})["participant"] == "ada"
    assert mint_with("bob", name="room-agent", grants=grants)["room"] == "lab"
    assert mint_with("bob", email="carl@example.com")["participant"] == "carl@example.com"
    with pytest.raises(package["PermissionDeniedError"], match="another participant"):
        mint_with("ada", name="room-agent")


def test_minted_token_is_limited_to_the_requested_models(proxy: ProxyProcess, token_of: Callable[[str], str]) -> None:
    body = {"api": {"llm": {"models": ["anthropic/*"]}}}
    token = send(proxy, "POST", f"{BASE}/participant-tokens", token_of("ada"), json=body).json()["token"]

    assert send(proxy, "POST", "/openai/v1/chat/completions", token, json=CHAT).status_code == 403


@pytest.mark.parametrize(
    ("body", "status", "rule"),
    [
        ({"api": {"llm": {}, "admin": {}}}, 403, "other than llm"),
        ({"api": {}}, 400, "llm"),
        ({"api": {"llm": {"models": "openai/*"}}}, 400, "must be a list"),
        ({"api": {"llm": {}, "x": 1.5}}, 400, "decimal point"),
        ({"role": "owner"}, 400, "user, agent, tool"),
        ({"name": ""}, 400, "printable"),
        ({"name": "a\u0000b"}, 400, "printable"),
        ({"name": "x" * 256}, 400, "255"),
        ({"room_name": ["lab"]}, 400, "room_name"),
        ({"name": "ada", "email": "ada@example.com"}, 400, "differ"),
        ({"grants": [], "role": "user"}, 400, "not both"),
        ({"grants": [{"name": "admin", "scope": True}]}, 400, "each at most once"),
        ({"grants": [{"name": "room", "scope": "a"}, {"name": "room", "scope": "b"}]}, 400, "each at most once"),
        ({"expires_in": 10**9}, 400, "expires_in"),
        ([], 400, "format"),
    ],
)
def test_wrong_token_request_is_refused_with_its_rule(
    proxy: ProxyProcess, token_of: Callable[[str], str], body: Any, status: int, rule: str
) -> None:
    response = send(proxy, "POST", f"{BASE}/participant-tokens", token_of("ada"), json=body)

    assert (response.status_code, set(response.json())) == (status, {"error"})
    assert rule in response.json()["error"]["message"]


def test_admin_may_grant_sections_of_other_services(proxy: ProxyProcess, token_of: Callable[[str], str]) -> None:
    body = {"name": "room-agent", "api": {"llm": {}, "messaging": {"send": True}}}
    token = send(proxy, "POST", f"{BASE}/participant-tokens", token_of("bob"), json=body).json()["token"]

    scopes = {
        grant["name"]: grant["scope"] for grant in jwt.decode(token, SIGNING_SECRET, algorithms=["HS256"])["grants"]
    }
    assert scopes == {"api": {"llm": {}, "messaging": {"send": True}}}


def test_published_client_reads_usage_of_the_project_as_its_admin(
    proxy: ProxyProcess, package: dict[str, Any], token_of: Callable[[str], str]
) -> None:
    for name in ("usage-1", "usage-2", "usage-3"):
        pay(proxy, mint(name=name))

    async def use(client: Any) -> Any:
        own = await client.get_current_user_llm_proxy_usage(PROJECT)
        tokens = {"provider": "openai", "usage_type": "output_tokens"}
        return own, [
            sum(row["requests"] for row in await client.get_usage(PROJECT, users=users, **tokens))
            for users in (["usage-1"], ["usage-1", "usage-3"], ["nobody"])
        ]

    own, counts = use_client(package, proxy, token_of("bob"), use)
    assert own
    assert counts == [1, 2, 0]
    with pytest.raises(RoomException, match="only an admin"):
        use_client(package, proxy, token_of("ada"), lambda client: client.get_usage(PROJECT))


def test_pages_of_project_usage_follow_their_link(proxy: ProxyProcess, token_of: Callable[[str], str]) -> None:
    pay(proxy, mint(name="paged"))
    path = f"{BASE}/usage?users=paged,other&limit=1"
    types: list[str] = []
    while path:
        page = send(proxy, "GET", path, token_of("bob"))
        assert page.status_code == 200, page.text
        types += [row["type"] for row in page.json()["usage"]]
        path = page.links["next"]["url"] if page.links else ""

    assert types == ["input_tokens", "llm_proxy_surcharge", "output_tokens"]


def test_local_proxy_reads_the_settings_of_its_project_with_any_credential(
    proxy: ProxyProcess, token_of: Callable[[str], str]
) -> None:
    documents = [
        send(proxy, "GET", f"{BASE}/llm-proxy/settings", token).json()
        for token in (mint(), token_of("ada"), token_of("bob"))
    ]

    fingerprint = documents[0]["prices"]["fingerprint"]
    assert len(fingerprint) == 12
    expected = {"surcharge_rate": "0.10", "on_client_disconnect": "drain", "prices": {"fingerprint": fingerprint}}
    assert documents == [expected, expected, expected]


# Who may call what.


def forged(issuer: RealIssuer) -> str:
    return jwt.encode({"iss": issuer.url, "sub": "bob", "aud": "llm-proxy", "exp": 4_000_000_000}, "x" * 32, "HS256")


ROUTES_OF_PEOPLE = [
    ("GET", "/accounts/profiles/me"),
    ("GET", "/accounts/whoami"),
    ("GET", "/accounts/projects"),
    ("GET", BASE),
    ("POST", f"{BASE}/access:test"),
    ("POST", f"{BASE}/rooms/lab/connect"),
    ("POST", f"{BASE}/participant-tokens"),
    ("GET", f"{BASE}/usage"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES_OF_PEOPLE)
def test_only_a_valid_access_token_opens_the_routes_of_people(
    proxy: ProxyProcess, issuer: RealIssuer, method: str, path: str
) -> None:
    cases = [
        (None, 401),
        ("not-a-token", 401),
        (OPENAI_KEY, 401),
        (forged(issuer), 401),
        (mint(secret="a wrong secret 0123456789 0123456789"), 401),
        ("tp_" + "0" * 43, 401),
        ("ek_a.b", 401),
        (mint(), 403),
    ]
    for token, status in cases:
        response = send(proxy, method, path, token, json={} if method == "POST" else None)
        assert response.status_code == status, (token, response.text)
        assert response.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)
        line = json.loads(proxy.wait_for_log(response.headers["Llm-Proxy-Request-Id"]))
        assert (line["message"], line["status"]) == ("request rejected", status)


QUESTION = {
    "subject": {"type": "user", "id": "me"},
    "resource": {"type": "project", "id": PROJECT},
    "relation": "member",
}


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("GET", "", None),
        ("POST", "/access:test", QUESTION),
        ("POST", "/rooms/lab/connect", {}),
        ("POST", "/participant-tokens", {}),
        ("GET", "/usage", None),
        ("GET", "/llm-proxy/settings", None),
        ("GET", "/llm-proxy/usage", None),
    ],
)
def test_foreign_and_unknown_projects_give_one_answer_and_a_header_must_agree(
    proxy: ProxyProcess, token_of: Callable[[str], str], method: str, rest: str, body: Any
) -> None:
    def ask(project: str, token: str, *headers: tuple[str, str]) -> httpx.Response:
        path = f"/accounts/projects/{project}{rest}"
        return send(proxy, method, path, token, json=body, headers=dict(headers))

    foreign, unknown = (ask(project, token_of("ada")) for project in (OTHER_PROJECT, UNKNOWN_PROJECT))
    assert (foreign.status_code, foreign.json()) == (403, unknown.json())
    assert unknown.status_code == 403
    contradicting = ask(PROJECT, token_of("bob"), ("Meshagent-Project-Id", OTHER_PROJECT))
    assert (contradicting.status_code, contradicting.json()["error"]["code"]) == (403, "project_mismatch")
    agreeing = ask(PROJECT, token_of("bob"), ("Meshagent-Project-Id", PROJECT))
    assert agreeing.status_code == 200


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (("eve", "POST", f"{BASE}/rooms/lab/connect", {}), 403, "not_allowed"),
        (("eve", "POST", f"{BASE}/participant-tokens", {}), 403, "not_allowed"),
        (("ada", "GET", f"{BASE}/usage", None), 403, "not_allowed"),
        (
            ("ada", "POST", f"{BASE}/access:test", {**QUESTION, "subject": {"type": "user", "id": "bob"}}),
            403,
            "not_allowed",
        ),
        (
            ("ada", "POST", f"{BASE}/access:test", {**QUESTION, "subject": {"type": "group", "id": "me"}}),
            403,
            "not_allowed",
        ),
        (("ada", "POST", f"{BASE}/access:test", {"relation": "member"}), 400, "invalid_body"),
        (("ada", "POST", f"{BASE}/rooms/lab/connect", {"room": "x"}), 400, "invalid_body"),
        (("ada", "POST", f"{BASE}/rooms/%20/connect", {}), 400, "invalid_body"),
        (("ada", "POST", f"{BASE}/participant-tokens", {"name": "x" * 70_000}), 413, "request_too_large"),
        (("bob", "POST", f"/accounts/projects/{OTHER_PROJECT}/participant-tokens", {}), 409, "no_api_key"),
        (("bob", "GET", f"{BASE}/usage?usage_type=a&type=b", None), 400, "bad_request"),
        (("bob", "GET", f"{BASE}/usage?users=a,,b", None), 400, "bad_request"),
        (("bob", "GET", f"{BASE}/usage?reports=x", None), 400, "bad_request"),
        (("ada", "POST", "/accounts/projects", {"name": "new"}), 405, "method_not_allowed"),
        (("ada", "GET", f"{BASE}/participant-tokens", None), 405, "method_not_allowed"),
        (("ada", "HEAD", "/oauth/token", None), 405, "method_not_allowed"),
        (("ada", "GET", f"{BASE}/feeds", None), 404, "not_found"),
    ],
)
def test_misplaced_request_is_refused(
    proxy: ProxyProcess, token_of: Callable[[str], str], sent: tuple[str, str, str, Any], status: int, code: str
) -> None:
    user, method, path, body = sent
    response = send(proxy, method, path, token_of(user), json=body)

    assert response.status_code == status, response.text
    line = json.loads(proxy.wait_for_log(response.headers["Llm-Proxy-Request-Id"]))
    assert (line["status"], line["code"]) == (status, code)
    if method != "HEAD":
        assert response.json()["error"]["code"] == code


def test_page_of_a_listed_origin_reads_responses_and_errors(
    proxy: ProxyProcess, token_of: Callable[[str], str]
) -> None:
    for token, status in ((token_of("ada"), 200), (mint(), 403)):
        response = send(proxy, "GET", "/accounts/projects", token, headers={"Origin": "https://app.test"})
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (status, "https://app.test")
    other = send(proxy, "GET", "/accounts/projects", token_of("ada"), headers={"Origin": "https://evil.test"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_log_line_of_a_request_has_its_route_and_user(
    proxy: ProxyProcess, issuer: RealIssuer, token_of: Callable[[str], str]
) -> None:
    response = send(proxy, "GET", BASE, token_of("ada"))

    line = json.loads(proxy.wait_for_log(response.headers["Llm-Proxy-Request-Id"]))
    shown = {name: line[name] for name in ("message", "path", "method", "status", "user", "issuer", "project_id")}
    assert shown == {
        "message": "account request",
        "path": "/accounts/projects/{project_id}",
        "method": "GET",
        "status": 200,
        "user": "ada",
        "issuer": issuer.url,
        "project_id": PROJECT,
    }


# The login of clients that know the URL of the proxy alone.


def start_login(proxy: ProxyProcess, issuer: RealIssuer, **changes: str) -> tuple[str, dict[str, str]]:
    """Log in as the published command line does; return its PKCE verifier, and the parameters of the callback."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": "p8xy1ZUi73jJUJbNfTg92HUSDpCSZJcc",
        "redirect_uri": CALLBACK,
        "scope": "llm:invoke profile",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": "a state",
        **changes,
    }
    started = httpx.get(f"{proxy.base_url}/oauth/authorize", params=query, timeout=TIMEOUT_S)
    assert started.status_code == 302
    with httpx.Client(base_url=issuer.url) as browser:
        callback = fill_in_pages(browser, started, "ada")
    assert callback.startswith(CALLBACK)
    return verifier, {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}


def test_published_login_flow_works_through_the_proxy(
    proxy: ProxyProcess, issuer: RealIssuer, package: dict[str, Any]
) -> None:
    verifier, answer = start_login(proxy, issuer)
    assert answer["state"] == "a state"
    form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": CALLBACK}
    own = {"client_id": "p8xy1ZUi73jJUJbNfTg92HUSDpCSZJcc", "client_secret": "of another system"}

    async def use(client: Any) -> Any:
        first = await client.exchange_oauth_token(form={**form, **own, "code_verifier": verifier})
        renewal = {"grant_type": "refresh_token", "refresh_token": first.refresh_token}
        return first, await client.exchange_oauth_token(form={**renewal, **own})

    first, second = use_client(package, proxy, "", use)

    assert first.token_type == "Bearer"
    assert first.scope == "llm_proxy"
    assert second.refresh_token not in (None, first.refresh_token)
    for tokens in (first, second):
        assert send(proxy, "GET", "/accounts/profiles/me", tokens.access_token).json()["id"] == "ada"
        assert tokens.refresh_token not in "".join(proxy.log)
    with pytest.raises(RoomException, match=r"400.*invalid_grant"):
        use_client(package, proxy, "", lambda client: client.exchange_oauth_token(form={**form, **own}))


def test_config_states_the_login_without_a_credential(
    proxy: ProxyProcess, issuer: RealIssuer, package: dict[str, Any]
) -> None:
    config = use_client(package, proxy, "", lambda client: client.get_config())
    document = send(proxy, "GET", "/config", None).json()

    assert config.domains.api == proxy.base_url
    assert document["oauth"] == {
        "issuer": issuer.url,
        "client_id": "cli",
        "scopes": ["openid", "offline_access", "llm_proxy"],
    }


def test_client_cannot_replace_the_client_and_scopes_of_the_login(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    query = {"scope": "x", "client_id": "evil", "request": "a.b.c", "request_uri": "https://evil.test", "state": "s&t"}
    response = httpx.get(f"{proxy.base_url}/oauth/authorize", params=query, timeout=TIMEOUT_S)

    target = urlsplit(response.headers["Location"])
    assert (response.status_code, f"{target.scheme}://{target.netloc}{target.path}") == (302, f"{issuer.url}/auth")
    assert parse_qs(target.query) == {
        "client_id": ["cli"],
        "scope": ["openid offline_access llm_proxy"],
        "state": ["s&t"],
        "prompt": ["consent"],
    }


@pytest.mark.parametrize(
    ("content", "media_type", "status", "error"),
    [
        (
            "grant_type=password&username=ada&password=x",
            "application/x-www-form-urlencoded",
            400,
            "unsupported_grant_type",
        ),
        ("grant_type=client_credentials", "application/x-www-form-urlencoded", 400, "unsupported_grant_type"),
        ("", "application/x-www-form-urlencoded", 400, "unsupported_grant_type"),
        ("grant_type=refresh_token&grant_type=password", "application/x-www-form-urlencoded", 400, "invalid_request"),
        ("&".join(f"p{n}=1" for n in range(60)), "application/x-www-form-urlencoded", 400, "invalid_request"),
        ('{"grant_type": "refresh_token"}', "application/json", 400, "invalid_request"),
        ("grant_type=refresh_token&refresh_token=unknown", "application/x-www-form-urlencoded", 400, "invalid_grant"),
        ("x" * 70_000, "application/x-www-form-urlencoded", 413, "request_too_large"),
    ],
)
def test_wrong_token_request_has_an_oauth_error(
    proxy: ProxyProcess, content: str, media_type: str, status: int, error: str
) -> None:
    response = send(proxy, "POST", "/oauth/token", None, content=content, headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_published_client_sets_reads_and_deletes_the_settings_of_a_provider(
    provider: str, package: dict[str, Any], proxy: ProxyProcess, token_of: Callable[[str], str]
) -> None:
    bob = token_of("bob")
    document = {"api_key": "sk-project-own-0123456789", "base_url": "https://eu.api.openai.com"}

    def call(method: str, *arguments: object) -> Any:
        name = f"{method}_project_settings_document"
        return use_client(package, proxy, bob, lambda client: getattr(client, name)(PROJECT, provider, *arguments))

    assert call("get") is None
    assert call("set", document) == {"ok": True}
    assert call("get") == {"api_key": "****6789", "base_url": "https://eu.api.openai.com"}
    set_line = f'"action":"provider settings set","subject":"{PROJECT}/{provider}"'
    line = next(line for line in proxy.wait_for_log_lines(set_line, 2) if '"message":"admin"' in line)
    assert json.loads(line)["actor"].startswith("user bob of http")
    assert "sk-project-own" not in "".join(proxy.log)
    assert call("delete") == {"ok": True}
    assert call("get") is None
    with pytest.raises(package["NotFoundError"]):
        call("delete")
    with pytest.raises(package["ValidationErrorResponse"]):
        call("set", {"base_url": "https://eu.api.openai.com"})


def test_settings_of_a_provider_are_for_admins_of_the_project(
    package: dict[str, Any], proxy: ProxyProcess, token_of: Callable[[str], str]
) -> None:
    # bob is an admin of the first project only, ada of none; a participant has no login.
    for token, project in ((token_of("ada"), PROJECT), (token_of("bob"), OTHER_PROJECT), (mint(), PROJECT)):
        for method, arguments in (("get", ()), ("set", ({"api_key": "sk-0123456789"},)), ("delete", ())):
            name = f"{method}_project_settings_document"
            with pytest.raises(package["PermissionDeniedError"]):
                use_client(
                    package,
                    proxy,
                    token,
                    lambda client, name=name, project=project, arguments=arguments: getattr(client, name)(
                        project, "openai", *arguments
                    ),
                )
