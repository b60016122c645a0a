"""The dashboard over HTTP: who sees what, exact sums, one-time links, headers, names that attack."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from tests.dashboard.browsing import make_link
from tests.dashboard.sample_ledger import FORMULA, NASTY
from tests.dashboard.sample_server import running_sample
from tests.harness import ANTHROPIC_KEY, OPENAI_KEY, OTHER_PROJECT, PROJECT, TIMEOUT_S, ProxyProcess
from tornado_proxy.cli import main as command_line

#: ada: 4 x 1000 tokens and 1 estimated, 0.0013125 each with the surcharge; bob: 2000 tokens.
ADA_TODAY, BOB_TODAY, ADA_BEFORE = Decimal("0.0065625"), Decimal("0.002625"), Decimal("0.002625")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_sample(tmp_path_factory.mktemp("dashboard")) as running:
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


def test_bill_by_day_has_pages(operator: httpx.Client) -> None:
    latest = fetch_rows(operator, "/dashboard/", group="day", subgroup="participant", participant="ada")
    days = sorted({row["day"] for row in latest})
    page = {"group": "day", "subgroup": "participant", "participant": "ada", "before": days[1]}

    earlier = fetch_rows(operator, "/dashboard/", **page)
    shown = operator.get("/dashboard/", params=page)
    refused = operator.get("/dashboard/", params={**page, "before": "yesterday"})

    assert [(row["day"], Decimal(row["total"])) for row in earlier] == [(days[0], ADA_BEFORE)]
    assert ">Latest</a>" in shown.text
    assert "No earlier request in this time." in shown.text
    assert (refused.status_code, "before must be the start of an interval" in refused.text) == (400, True)


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

    assert len(re.findall("<tr>", page.rpartition("<tbody>")[2].partition("</tbody>")[0])) == len(rows)
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


def test_list_pages_through_all_requests_newest_first(proxy: ProxyProcess, operator: httpx.Client) -> None:
    found, url = [], "/dashboard/requests?range=30d&limit=4"
    for _ in range(10):
        page = operator.get(url).text
        found += re.findall(r'<td class="id"><a href="[^"]*">([^<]*)</a>', page)
        following = re.search(r'<a href="([^"]*)" rel="next">', page)
        if following is None:
            break
        url = html.unescape(following[1])

    records = proxy.read_records()
    places = {record["request_id"]: (record["started_at"], record["request_id"]) for record in records}
    assert found == sorted(places, key=lambda name: places[name], reverse=True)


def test_list_states_no_amount_for_a_cost_that_is_not_known(operator: httpx.Client) -> None:
    rows = fetch_rows(operator, "/dashboard/requests", "requests", range="today")

    totals = {row["request_id"]: row["total"] for row in rows}
    assert (totals["req_ada0"], totals["req_unsettled"], totals["req_pending"]) == ("0.0013125", None, None)


def test_one_request_is_explained_as_the_command_explains_it(proxy: ProxyProcess, operator: httpx.Client) -> None:
    command = ["explain", "req_bob", "--config", str(proxy.folder / "proxy.yaml"), "--format", "json"]
    explained = json.loads(CliRunner().invoke(command_line, command).stdout)

    by_own_id = operator.get("/dashboard/requests/req_bob?format=json").json()
    by_providers_id = operator.get(f"/dashboard/requests/{quote(NASTY[0], safe='')}?format=json").json()

    assert by_own_id == {"requests": [explained]}
    # Found by the provider's own id, which a provider can fill with markup.
    assert [request["upstream_request_id"] for request in by_providers_id["requests"]] == [NASTY[0]]


def test_member_finds_no_request_of_others(ada: httpx.Client, lead: httpx.Client) -> None:
    own = fetch_rows(ada, "/dashboard/requests", "requests", range="30d")

    assert {row["caller"] for row in own} == {"ada"}
    assert ada.get("/dashboard/requests/req_ada1").status_code == 200
    for request_id in ("req_bob", "req_eve", "req_nasty0", quote(NASTY[0], safe=""), "%00", "x" * 3000):
        assert ada.get(f"/dashboard/requests/{request_id}").status_code == 404
    for name, value in (("participant", "bob"), ("user", "bob"), ("project", OTHER_PROJECT)):
        assert ada.get("/dashboard/requests", params={name: value}).status_code == 403
        assert ada.get("/dashboard/requests/req_bob", params={name: value}).status_code in (400, 403)
    assert lead.get("/dashboard/requests/req_bob").status_code == 200
    assert lead.get("/dashboard/requests/req_eve").status_code == 404


def test_open_costs_are_counted_for_their_viewer(operator: httpx.Client, ada: httpx.Client, lead: httpx.Client) -> None:
    expected = [
        {"basis": "unsettled", "requests": 1, "total": None},
        {"basis": "pending", "requests": 1, "total": None},
        {"basis": "estimated", "requests": 1, "total": "0.0013125"},
    ]

    for client in (operator, ada, lead):
        assert fetch_rows(client, "/dashboard/open", "open_costs") == expected
    assert "req_unsettled" in ada.get("/dashboard/open").text


def test_budgets_are_shown_to_those_whom_they_concern(
    operator: httpx.Client, ada: httpx.Client, lead: httpx.Client
) -> None:
    everything, own, project = (
        {(row["subject"], row["limit"], row["settled"]) for row in fetch_rows(client, "/dashboard/budgets", "budgets")}
        for client in (operator, ada, lead)
    )

    ada_budget = ("participant ada", "0.0065625", "0.0065625")
    assert own == {ada_budget}
    assert {ada_budget, ("participant bob", "0.0065625", "0.002625")} < project
    assert {row[:2] for row in everything} - {row[:2] for row in project} == {("project", "7")}
    assert "0.0065625, spent" in ada.get("/dashboard/budgets").text
    assert "600 requests per minute" in lead.get("/dashboard/budgets").text


def test_operator_selects_the_budgets_of_a_project_by_its_id_or_name(operator: httpx.Client) -> None:
    by_id, by_name = (
        fetch_rows(operator, "/dashboard/budgets", "budgets", project=project)
        for project in (PROJECT, "<b>Acme</b> research")
    )
    unknown = operator.get("/dashboard/budgets", params={"project": "frist"})

    assert {row["project"] for row in by_id} == {PROJECT}
    assert by_name == by_id
    assert unknown.status_code == 404
    assert "no project has the id or name 'frist'" in html.unescape(unknown.text)


def test_keys_are_shown_without_their_secrets_to_their_owners(
    operator: httpx.Client, ada: httpx.Client, lead: httpx.Client
) -> None:
    pages = [client.get("/dashboard/prices").text for client in (operator, lead)]

    assert [page.count("in use</td>") for page in pages] == [3, 1]  # two of the server, one of the project
    assert not [page for page in pages if OPENAI_KEY in page or ANTHROPIC_KEY in page]
    assert ada.get("/dashboard/prices").status_code == 403
    assert "/dashboard/prices" not in ada.get("/dashboard/").text
    models = {row["model"] for row in fetch_rows(lead, "/dashboard/prices", "prices")}
    assert {"gpt-5.4", "claude-haiku-4-5"} < models


@pytest.mark.parametrize("path", ["requests", "requests/req_ada0", "open", "budgets", "prices"])
def test_page_refuses_parameters_that_it_does_not_know(operator: httpx.Client, path: str) -> None:
    response = operator.get(f"/dashboard/{path}", params={"typo": "x"})

    assert response.status_code == 400
    assert "unknown parameter typo" in response.text
    assert operator.get(f"/dashboard/{path}", params={"format": "x"}).status_code == 400
    assert httpx.get(str(response.url), timeout=TIMEOUT_S).status_code == 401
