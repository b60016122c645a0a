"""The dashboard over HTTP: who sees what, exact sums, one-time links, headers, names that attack."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from tests.dashboard.browsing import make_link
from tests.dashboard.sample_ledger import FORMULA, NASTY, make_requests, write_records
from tests.harness import OTHER_PROJECT, PROJECT, TIMEOUT_S, ProxyProcess, running_proxy

#: Nothing listens there: the pages need no provider.
NOWHERE = "http://127.0.0.1:9"

#: ada: 4 x 1000 tokens and 1 estimated, 0.0013125 each with the surcharge; bob: 2000 tokens.
ADA_TODAY, BOB_TODAY, ADA_BEFORE = Decimal("0.0065625"), Decimal("0.002625"), Decimal("0.002625")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    folder = tmp_path_factory.mktemp("dashboard")
    write_records(folder / "ledger.db", make_requests(datetime.now(UTC)))
    with running_proxy(folder, NOWHERE) as running:
        yield running


def make_client(root: str) -> httpx.Client:
    return httpx.Client(base_url=root, follow_redirects=True, timeout=TIMEOUT_S)


@contextmanager
def sign_in(proxy: ProxyProcess, *options: str) -> Iterator[httpx.Client]:
    """Yield a client with a session."""
    link = make_link(proxy, *options)
    with make_client(link.partition("/dashboard")[0]) as client:
        response = client.post("/dashboard/sign-in", data={"link": link.partition("link=")[2]})
        assert response.status_code == 200
        assert response.url.path == "/dashboard/"
        yield client


@pytest.fixture(scope="module")
def operator(proxy: ProxyProcess) -> Iterator[httpx.Client]:
    with sign_in(proxy) as client:
        yield client


@pytest.fixture(scope="module")
def ada(proxy: ProxyProcess) -> Iterator[httpx.Client]:
    with sign_in(proxy, "--project", PROJECT, "--participant", "ada") as client:
        yield client


@pytest.fixture(scope="module")
def lead(proxy: ProxyProcess) -> Iterator[httpx.Client]:
    with sign_in(proxy, "--project", PROJECT) as client:
        yield client


def fetch_rows(client: httpx.Client, path: str, member: str = "bill", **parameters: str) -> list[dict[str, Any]]:
    response = client.get(path, params={**parameters, "format": "json"})
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()[member]
    return rows


def test_link_signs_one_browser_in_once(proxy: ProxyProcess) -> None:
    link = make_link(proxy)
    with make_client(proxy.admin_url) as first, make_client(proxy.admin_url) as second:
        assert "Sign in</button>" in first.get(link).text  # looking at the link does not use it up
        secret = link.partition("link=")[2]
        used = first.post("/dashboard/sign-in", data={"link": secret}, follow_redirects=False)
        again = second.post("/dashboard/sign-in", data={"link": secret})

    assert (used.status_code, used.headers["location"]) == (303, "/dashboard/")
    cookie = used.headers["set-cookie"]
    assert re.fullmatch(
        r"llm_proxy_admin_dashboard=[\w-]{43}; HttpOnly; Max-Age=43200; Path=/dashboard; SameSite=Strict", cookie
    )
    assert again.status_code == 401
    assert "this link was used or is older than 60 seconds" in again.text
    assert secret not in proxy.ledger.read_bytes().decode("latin-1")
    assert cookie.partition("=")[2].partition(";")[0] not in proxy.ledger.read_bytes().decode("latin-1")


def test_cookie_is_secure_behind_a_tls_terminator(proxy: ProxyProcess) -> None:
    secret = make_link(proxy).partition("link=")[2]
    with make_client(proxy.admin_url) as client:
        response = client.post(
            "/dashboard/sign-in",
            data={"link": secret},
            headers={"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/llm"},
            follow_redirects=False,
        )

    assert "Path=/llm/dashboard; SameSite=Strict; Secure" in response.headers["set-cookie"]
    assert response.headers["location"] == "/llm/dashboard/"


def test_session_ends_with_sign_out(proxy: ProxyProcess) -> None:
    with sign_in(proxy) as client:
        session = client.cookies["llm_proxy_admin_dashboard"]
        assert client.post("/dashboard/sign-out").status_code == 401
        kept = client.get("/dashboard/", headers={"Cookie": f"llm_proxy_admin_dashboard={session}"})

    assert kept.status_code == 401


def test_session_of_one_port_shows_nothing_on_the_other(proxy: ProxyProcess, operator: httpx.Client) -> None:
    session = operator.cookies["llm_proxy_admin_dashboard"]
    cookies = f"llm_proxy_admin_dashboard={session}; llm_proxy_dashboard={session}"

    response = httpx.get(f"{proxy.base_url}/dashboard/", headers={"Cookie": cookies}, timeout=TIMEOUT_S)
    link = make_link(proxy).replace(proxy.admin_url, proxy.base_url)

    assert response.status_code == 401
    assert httpx.get(link, timeout=TIMEOUT_S).status_code == 401


def test_operators_token_and_a_foreign_site_open_no_page(proxy: ProxyProcess) -> None:
    url = f"{proxy.admin_url}/dashboard/"

    assert httpx.get(url, headers={"Host": "evil.example"}, timeout=TIMEOUT_S).status_code == 403
    foreign = httpx.post(
        f"{proxy.admin_url}/dashboard/sign-in",
        data={"link": make_link(proxy).partition("link=")[2]},
        headers={"Sec-Fetch-Site": "cross-site"},
        timeout=TIMEOUT_S,
    )
    assert foreign.status_code == 403


def test_every_response_forbids_scripts_of_others_frames_and_caches(operator: httpx.Client) -> None:
    for path in ("/dashboard/", "/dashboard/?group=nope", "/dashboard/none", "/dashboard/sign-in"):
        headers = operator.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_bill_compares_today_with_yesterday(operator: httpx.Client) -> None:
    # "today" is compared with as much of yesterday as has passed, and the requests began at 00:00:01.
    rows = fetch_rows(operator, "/dashboard/", range="today", group="participant", project=PROJECT, top="2")

    ada, bob, others = rows
    assert (ada["participant"], Decimal(ada["total"]), ada["requests"]) == ("ada", ADA_TODAY, 7)
    assert Decimal(ada["previous"]) in (ADA_BEFORE, 0)  # 0 in the first minute of a day
    assert Decimal(ada["change"]) == ADA_TODAY - Decimal(ada["previous"])
    assert (ada["unsettled"], ada["pending"]) == (1, 1)
    assert (bob["participant"], Decimal(bob["total"]), bob["previous"]) == ("bob", BOB_TODAY, "0")
    assert (others["participant"], others["requests"]) == (f"{len(NASTY)} others", len(NASTY))


def test_sums_of_the_bill_are_those_of_the_ledger(proxy: ProxyProcess, operator: httpx.Client) -> None:
    records = proxy.read_records()
    total = sum(Decimal(record["total"]) for record in records)

    for group in ("project", "day", "participant", "room", "model", "endpoint", "provider_key", "basis", "label.team"):
        rows = fetch_rows(operator, "/dashboard/", range="30d", group=group, subgroup="provider", top="1")
        assert sum(Decimal(row["total"]) for row in rows) == total, group
        assert sum(row["requests"] for row in rows) == len(records), group


def test_page_shows_the_rows_of_its_csv(operator: httpx.Client) -> None:
    parameters = {"range": "today", "group": "participant", "subgroup": "day", "top": "3"}
    page = operator.get("/dashboard/", params=parameters).text
    rows = list(csv.DictReader(io.StringIO(operator.get("/dashboard/", params={**parameters, "format": "csv"}).text)))

    assert len(re.findall("<tr>", page.partition("<tbody>")[2].partition("</tbody>")[0])) == len(rows)
    for row in rows:
        assert row["total"] in page


def test_cells_of_the_csv_are_no_formulas(operator: httpx.Client) -> None:
    text = operator.get("/dashboard/", params={"group": "participant", "format": "csv"}).text

    names = [row["participant"] for row in csv.DictReader(io.StringIO(text))]
    assert f"'{FORMULA}" in names
    assert not [name for name in names if name.startswith("=")]


def test_member_sees_its_own_usage_by_no_url_that_of_others(ada: httpx.Client) -> None:
    own = fetch_rows(ada, "/dashboard/", range="today", group="participant")
    assert [(row["participant"], Decimal(row["total"])) for row in own] == [("ada", ADA_TODAY)]

    for name, value in (("participant", "bob"), ("user", "bob"), ("issuer", "x"), ("project", OTHER_PROJECT)):
        assert ada.get("/dashboard/", params={name: value}).status_code == 403, name
    for name, value in (("users", "bob"), ("room", "den"), ("model", "bob")):
        assert fetch_rows(ada, "/dashboard/", range="30d", group="participant", **{name: value}) == []


def test_project_admin_sees_its_project_alone(lead: httpx.Client) -> None:
    rows = fetch_rows(lead, "/dashboard/", range="today", group="participant", top="500")

    assert {"ada", "bob"} < {row["participant"] for row in rows}
    assert "eve" not in {row["participant"] for row in rows}
    assert lead.get("/dashboard/", params={"project": OTHER_PROJECT}).status_code == 403
    assert fetch_rows(lead, "/dashboard/", range="today", group="participant", project=PROJECT, top="500") == rows


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"group": "nope"}, "cannot group by nope"),
        ({"range": "forever"}, "range must be one of"),
        ({"start": "yesterday"}, "start must be a date"),
        ({"start": "2026-02-02", "end": "2026-02-01"}, "start must be before end"),
        ({"end": "2026-02-02"}, "end needs a start"),
        ({"start": "0001-01-01"}, "start is too early"),
        ({"top": "0"}, "top must be a number from 1 to 500"),
        ({"sort": "x"}, "sort must be one of"),
        ({"modle": "x"}, "unknown parameter modle"),
        ({"group": "day", "subgroup": "hour"}, "group by one interval"),
    ],
)
def test_malformed_url_is_explained(operator: httpx.Client, parameters: dict[str, str], message: str) -> None:
    page = operator.get("/dashboard/", params=parameters)
    data = operator.get("/dashboard/", params={**parameters, "format": "json"})

    assert page.status_code == data.status_code == 400
    assert message in page.text
    assert message in data.json()["error"]["message"]
