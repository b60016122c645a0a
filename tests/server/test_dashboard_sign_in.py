"""Sign in to the dashboard at a real identity provider, in a real browser on another site than the provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.dashboard.browsing import find_violations, running_browser
from tests.dashboard.sample_ledger import make_cost, write_records
from tests.dashboard.sample_server import NOWHERE
from tests.harness import OTHER_PROJECT, PROJECT, TIMEOUT_S, ProxyProcess, running_proxy
from tests.ledger.sample_records import make_intent, make_record
from tests.oauth.real_issuer import RealIssuer, running_real_issuer
from tornado_proxy.domain.identity import Caller

USE = ["can_use_llm_proxy"]

PROJECTS: list[dict[str, Any]] = [
    {
        "id": PROJECT,
        "name": "first",
        "members": [{"user": "ada@example.com", "permissions": USE}, {"user": "bob", "admin": True}],
    },
    {"id": OTHER_PROJECT, "name": "other", "members": [{"user": "bob", "permissions": USE}]},
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[RealIssuer]:
    with running_real_issuer() as running:
        yield running


def write_ledger(path: Path, issuer: str) -> None:
    """Write a request of ada and of bob in the first project, and of bob and zoe in the other."""
    now = datetime.now(UTC).replace(hour=0, minute=0, second=1)
    users = (("ada", PROJECT), ("bob", PROJECT), ("bob", OTHER_PROJECT), ("zoe", OTHER_PROJECT))
    callers = [Caller(project, user=user, issuer=issuer) for user, project in users]
    intents = [
        make_intent(f"req_{number}", caller=caller, started_at=now, model_requested=f"model-{number}")
        for number, caller in enumerate(callers)
    ]
    write_records(path, [make_record(intent, model=None, cost=make_cost(1000)) for intent in intents])


@pytest.fixture(scope="module")
def proxy(issuer: RealIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    login = {"client_id": "cli", "scopes": ["openid", "offline_access", "llm_proxy"]}
    oauth = [{"issuer": issuer.url, "audience": "llm-proxy", "clients": ["cli"], "login": login}]
    folder = tmp_path_factory.mktemp("sign_in")
    write_ledger(folder / "ledger.db", issuer.url)
    with running_proxy(folder, NOWHERE, oauth=oauth, projects=PROJECTS) as running:
        yield running


@pytest.fixture(scope="module")
def browser(proxy: ProxyProcess) -> Iterator[Browser]:  # after the ledger: Playwright runs an event loop
    with running_browser() as running:
        yield running


def log_in(page: Page, user: str) -> None:
    """Fill in the pages of the issuer."""
    page.locator("[name=login]").fill(user)
    page.locator("[name=password]").fill("x")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def name_localhost(proxy: ProxyProcess) -> str:
    """Return the URL of the client port on another site than the issuer, which is on 127.0.0.1."""
    return proxy.base_url.replace("127.0.0.1", "localhost")


def test_member_signs_in_and_sees_the_page_that_it_wanted(browser: Browser, proxy: ProxyProcess) -> None:
    page = browser.new_page()
    page.goto(f"{name_localhost(proxy)}/dashboard/?range=today&group=user")
    assert find_violations(page) == []
    page.get_by_role("link", name="Sign in with your account").click()
    log_in(page, "ada")
    page.wait_for_url("**/dashboard/?range=today&group=user")

    assert page.get_by_role("region", name="Bill").locator("tbody tr").all_inner_texts()[0].split()[:3] == [
        "ada",
        "1",
        "0.0013125",
    ]
    assert page.get_by_role("region", name="Bill").locator("tbody tr").count() == 1
    (cookie,) = page.context.cookies(f"{name_localhost(proxy)}/dashboard/")
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("llm_proxy_dashboard", True, "Strict")
    page.close()


def test_admin_of_one_project_is_a_member_of_the_other(browser: Browser, proxy: ProxyProcess) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{name_localhost(proxy)}/dashboard/")
    page.get_by_role("link", name="Sign in with your account").click()
    log_in(page, "bob")
    page.get_by_role("heading", name="Bill").wait_for()

    page.locator("[name=group]").select_option("user")
    page.get_by_role("button", name="Show").last.click()
    assert [
        row.split()[0] for row in page.get_by_role("region", name="Bill").locator("tbody tr").all_inner_texts()
    ] == ["ada", "bob"]

    page.locator("select[name=project]").select_option(label="other")
    page.get_by_role("button", name="Show").first.click()
    page.locator("[name=group]").select_option("user")
    page.get_by_role("button", name="Show").last.click()
    assert [
        row.split()[0] for row in page.get_by_role("region", name="Bill").locator("tbody tr").all_inner_texts()
    ] == ["bob"]
    assert f"project={OTHER_PROJECT}" in page.url
    assert find_violations(page) == []
    page.goto(f"{name_localhost(proxy)}/dashboard/requests/req_3?project={OTHER_PROJECT}")
    assert "you have no request with this id" in page.inner_text("main")
    page.context.close()


def test_user_who_is_no_member_sees_nothing(proxy: ProxyProcess) -> None:
    with httpx.Client(base_url=proxy.base_url, timeout=TIMEOUT_S) as client:
        answer = client.get(find_callback(client, "stranger"))

    assert answer.status_code == 401
    assert "you are a member of no project" in answer.text
    assert "llm_proxy_dashboard=" not in str(answer.headers)


def find_callback(client: httpx.Client, user: str, *, cancel: bool = False) -> str:
    """Begin a login and return the URL to which the issuer sends the browser back."""
    started = client.get("/dashboard/sign-in/start", follow_redirects=False)
    target = started.headers["location"]
    origin = target.partition("/auth")[0]
    with httpx.Client(base_url=origin, timeout=TIMEOUT_S) as person:
        response = person.get(target)
        for _ in range(10):
            if response.is_redirect and "/dashboard/sign-in/callback" in response.headers["Location"]:
                return str(response.headers["Location"])
            response = step(person, response, user, cancel=cancel)
    raise AssertionError(f"the login does not end: {response.url}")


def step(person: httpx.Client, response: httpx.Response, user: str, *, cancel: bool) -> httpx.Response:
    """Return the next response of the issuer."""
    if response.is_redirect:
        return person.get(response.headers["Location"])
    if cancel:
        return person.get(f"{response.url}/abort")
    prompt = "login" if 'name="login"' in response.text else "consent"
    return person.post(str(response.url), data={"prompt": prompt, "login": user, "password": "x"})


def test_login_asks_for_pkce_and_no_refresh_token(proxy: ProxyProcess, issuer: RealIssuer) -> None:
    with httpx.Client(base_url=proxy.base_url, timeout=TIMEOUT_S) as client:
        started = client.get("/dashboard/sign-in/start?next=//evil.example")
        query = parse_qs(urlsplit(started.headers["location"]).query)

    assert started.headers["location"].startswith(issuer.url)
    assert query["code_challenge_method"] == ["S256"]
    assert query["scope"] == ["openid llm_proxy"]
    assert query["redirect_uri"] == [f"{proxy.base_url}/dashboard/sign-in/callback"]
    cookie = started.headers["set-cookie"]
    assert re.search(r"; HttpOnly; Max-Age=600; Path=/dashboard/sign-in; SameSite=Lax$", cookie)


def test_response_of_another_login_is_refused(proxy: ProxyProcess) -> None:
    with (
        httpx.Client(base_url=proxy.base_url, timeout=TIMEOUT_S) as attacker,
        httpx.Client(base_url=proxy.base_url, timeout=TIMEOUT_S) as victim,
    ):
        callback = find_callback(attacker, "ada")
        without_login = victim.get(callback)
        victim.get("/dashboard/sign-in/start")
        of_another = victim.get(callback)
        wrong_issuer = attacker.get(callback.replace("iss=http", "iss=https"))
        assert attacker.get("/dashboard/").status_code == 401

    for refused in (without_login, of_another, wrong_issuer):
        assert refused.status_code == 401
        assert "llm_proxy_dashboard=" not in str(refused.headers)


def test_code_is_used_once_and_a_refusal_is_told(proxy: ProxyProcess) -> None:
    with httpx.Client(base_url=proxy.base_url, timeout=TIMEOUT_S) as client:
        callback = find_callback(client, "ada")
        cookies = dict(client.cookies)
        assert client.get(callback).status_code == 200
        again = client.get(
            callback, headers={"Cookie": f"llm_proxy_dashboard_login={cookies['llm_proxy_dashboard_login']}"}
        )
        cancelled = client.get(find_callback(client, "ada", cancel=True))

    assert (again.status_code, cancelled.status_code) == (401, 401)
    assert "the issuer has refused the login (invalid_grant)" in again.text
    assert "the issuer has refused the login (access_denied)" in cancelled.text


def test_admin_port_has_no_login_of_users(proxy: ProxyProcess) -> None:
    page = httpx.get(f"{proxy.admin_url}/dashboard/", timeout=TIMEOUT_S)

    assert "Sign in with your account" not in page.text
    assert httpx.get(f"{proxy.admin_url}/dashboard/sign-in/start", timeout=TIMEOUT_S).status_code == 404
