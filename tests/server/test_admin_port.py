"""Readiness, liveness, metrics and the log line of each request: what an operator's tools read."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from tests.browser import open_page
from tests.harness import ADMIN_TOKEN, OPENAI_KEY, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.replay_provider import ProviderResponse, ReplayProvider
from tests.server.chat import CHAT_RESPONSE, post_chat


@pytest.fixture(scope="module")
def named_proxy(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A server whose admin port has further names."""
    admin = {
        "host": "127.0.0.1",
        "port": 0,
        "token": {"env": "TEST_ADMIN_TOKEN"},
        "hosts": ["Proxy.Example", "10.0.0.5"],
    }
    with running_proxy(tmp_path_factory.mktemp("named"), provider.url, admin=admin) as running:
        yield running


def test_readiness_liveness_and_metrics_are_on_the_admin_port_only(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    post_chat(proxy)

    assert proxy.fetch_admin("/healthz") == (200, "ok\n")
    assert proxy.fetch_admin("/readyz") == (200, "ready\n")
    assert 'llm_proxy_requests_total{outcome="completed",provider="openai"}' in proxy.fetch_admin("/metrics")[1]
    assert httpx.get(proxy.base_url + "/metrics").status_code == 404


def test_openmetrics_names_a_request_of_each_bucket_as_its_exemplar(
    proxy: ProxyProcess, provider: ReplayProvider
) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    request_id = post_chat(proxy).headers["llm-proxy-request-id"]
    accept = {**BEARER, "Accept": "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"}

    response = request(proxy, "GET", "/metrics", accept)

    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics(response.text)}
    for name in ("llm_proxy_request_seconds", "llm_proxy_first_byte_seconds"):
        exemplars = [sample.exemplar for sample in families[name].samples if sample.exemplar is not None]
        assert {"request_id": request_id} in [exemplar.labels for exemplar in exemplars]
    plain = request(proxy, "GET", "/metrics", BEARER)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert request_id not in plain.text


#: One client for all requests, because each new one reads the certificate authorities; it keeps no connection.
CLIENT = httpx.Client(timeout=TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0))

BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}

#: A path with the bearer, and the paths that need none.
PROTECTED = [("POST", "/reload"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nowhere")]
OPEN = [("GET", "/healthz"), ("GET", "/readyz")]


def request(proxy: ProxyProcess, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    return CLIENT.request(method, proxy.admin_url + path, headers=headers)


def error_code(response: httpx.Response) -> str:
    """Return the code of an error; each error is JSON of one shape."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return str(error["code"])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": "https://evil.example"}, id="a page of another origin"),
        pytest.param({"Origin": "null"}, id="a page without an origin"),
        pytest.param({"Origin": "http://127.0.0.1:8081"}, id="an own page"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="a cross-site request"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="a same-site request"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [*PROTECTED, *OPEN])
def test_no_page_reaches_the_admin_port_with_any_credential(
    method: str, path: str, headers: dict[str, str], proxy: ProxyProcess
) -> None:
    response = request(proxy, method, path, {**BEARER, **headers})

    assert (response.status_code, error_code(response)) == (403, "foreign_origin")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("127.0.0.1:8081", 200, id="a loopback address"),
        pytest.param("127.1.2.3", 200, id="another loopback address"),
        pytest.param("[::1]:8081", 200, id="an IPv6 loopback address"),
        pytest.param("LOCALHOST", 200, id="localhost"),
        pytest.param("proxy.example:8081", 200, id="a name of admin.hosts"),
        pytest.param("10.0.0.5", 200, id="an address of admin.hosts"),
        pytest.param("rebound.evil.example:8081", 403, id="a page's own name that resolves to this machine"),
        pytest.param("127.0.0.1.evil.example", 403, id="a name that begins as an address"),
        pytest.param("192.0.2.7:8081", 403, id="an address that is not configured"),
        pytest.param("other:8081", 403, id="a name without a dot that is not configured"),
        pytest.param("proxy.example.evil.example", 403, id="a name that begins as a configured one"),
    ],
)
def test_host_must_be_loopback_or_configured_except_for_health_checks(
    host: str, status: int, named_proxy: ProxyProcess
) -> None:
    response = request(named_proxy, "GET", "/metrics", {**BEARER, "Host": host})

    assert response.status_code == status
    assert status == 200 or error_code(response) == "foreign_host"
    assert [request(named_proxy, *line, {"Host": host}).status_code for line in OPEN] == [200, 200]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Bearer"}, id="empty"),
        pytest.param({"Authorization": f"Bearer {ADMIN_TOKEN}x"}, id="longer"),
        pytest.param({"Authorization": f"Bearer {ADMIN_TOKEN[:-1]}"}, id="shorter"),
        pytest.param({"Authorization": f"Bearer {ADMIN_TOKEN.upper()}"}, id="another case"),
        pytest.param({"Authorization": f"Basic {ADMIN_TOKEN}"}, id="another scheme"),
        pytest.param({"Authorization": ADMIN_TOKEN}, id="no scheme"),
        pytest.param({"x-api-key": ADMIN_TOKEN}, id="another header"),
        pytest.param({"Authorization": f"Bearer {mint()}"}, id="a participant token"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [*PROTECTED, ("TRACE", "/metrics"), ("GET", "/%ff"), ("DELETE", "/healthz/x")]
)
def test_everything_but_health_needs_the_admin_token(
    method: str, path: str, headers: dict[str, str], proxy: ProxyProcess
) -> None:
    response = request(proxy, method, path, headers)

    assert (response.status_code, error_code(response)) == (401, "invalid_admin_token")
    assert response.headers["www-authenticate"] == "Bearer"
    assert ADMIN_TOKEN not in response.text


def test_without_a_configured_token_everything_but_health_is_401(tmp_path: Path, provider: ReplayProvider) -> None:
    with running_proxy(tmp_path, provider.url, admin={"host": "127.0.0.1", "port": 0}) as proxy:
        for method, path in PROTECTED:
            for headers in ({}, BEARER, {"Authorization": "Bearer"}, {"Authorization": "Bearer None"}):
                response = request(proxy, method, path, headers)
                assert response.status_code == 401
                assert "set admin.token" in response.json()["error"]["message"]
        assert [request(proxy, *line, {}).status_code for line in OPEN] == [200, 200]


def test_admin_token_changes_with_a_reload(tmp_path: Path, provider: ReplayProvider) -> None:
    with running_proxy(tmp_path, provider.url) as proxy:
        path = tmp_path / "proxy.yaml"
        path.write_text(path.read_text().replace("TEST_ADMIN_TOKEN", "TEST_OPENAI_KEY"))

        assert request(proxy, "POST", "/reload", BEARER).status_code == 200

        assert request(proxy, "GET", "/metrics", BEARER).status_code == 401
        assert request(proxy, "GET", "/metrics", {"Authorization": f"bearer {OPENAI_KEY}"}).status_code == 200
        assert OPENAI_KEY not in "".join(proxy.log)


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PUT", "PATCH", "POST", "PROPFIND", "initialize", "GETX"])
def test_other_methods_are_405_and_name_those_that_exist(method: str, proxy: ProxyProcess) -> None:
    response = request(proxy, method, "/metrics", BEARER)

    assert (response.status_code, error_code(response)) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/metrics/", "/v1", "/%ff%00", "//metrics", "/METRICS"])
@pytest.mark.parametrize("method", ["GET", "POST", "TRACE"])
def test_unknown_paths_are_404(method: str, path: str, proxy: ProxyProcess) -> None:
    response = request(proxy, method, path, BEARER)

    assert (response.status_code, error_code(response)) == (404, "not_found")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_head_has_the_headers_of_get_and_no_body(path: str, proxy: ProxyProcess) -> None:
    get, head = (request(proxy, method, path, BEARER) for method in ("GET", "HEAD"))

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="no request line"),
        pytest.param(b"GET /metrics HTTP/9.9\r\nHost: localhost\r\n\r\n", id="another version"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", id="a header without a colon"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two hosts"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", id="a malformed host"),
        pytest.param(b"GET /metrics HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", id="a length in words"),
        pytest.param(
            b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n", id="a long body"),
    ],
)
def test_malformed_requests_are_400_as_json(lines: bytes, proxy: ProxyProcess) -> None:
    host, port = proxy.admin_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection, connection.makefile("rb") as response:
        connection.sendall(lines)
        head, _, body = response.read().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["error"]["code"] == "malformed_request"


@pytest.mark.parametrize("query", ["dry_run=2", "dry_run=", "dry_run=true", "dry_run=1&dry_run=1", "dryrun=1", "x=%ff"])
def test_faulty_parameters_are_400_and_change_nothing(query: str, proxy: ProxyProcess) -> None:
    response = request(proxy, "POST", f"/reload?{query}", BEARER)

    assert (response.status_code, error_code(response)) == (400, "bad_request")
    assert "llm_proxy_config_generation 1.0" in request(proxy, "GET", "/metrics", BEARER).text


def test_reload_reports_faults_and_a_dry_run_changes_nothing(tmp_path: Path, provider: ReplayProvider) -> None:
    with running_proxy(tmp_path, provider.url) as proxy:
        path = tmp_path / "proxy.yaml"
        valid = path.read_text()
        path.write_text(valid.replace("surcharge_rate: '0.05'", "surcharge_rate: '0.5'"))
        checked = request(proxy, "POST", "/reload?dry_run=1", BEARER)
        path.write_text(valid.replace("surcharge_rate:", "surcharge_rat:"))
        refused = [request(proxy, "POST", f"/reload?dry_run={dry_run}", BEARER) for dry_run in "01"]
        path.write_text(valid)
        reloaded = request(proxy, "POST", "/reload", BEARER)
        line = json.loads(proxy.wait_for_log('"action":"configuration reloaded"'))

    assert checked.json() == {"generation": 1, "dry_run": True, "changes": ["pricing.surcharge_rate"]}
    for response in refused:
        assert (response.status_code, error_code(response)) == (422, "invalid_configuration")
        assert [fault for fault in response.json()["error"]["faults"] if "surcharge_rat" in fault]
    assert reloaded.json() == {"generation": 2, "dry_run": False, "changes": []}
    assert (line["message"], line["actor"], line["peer"]) == ("admin", "admin", "127.0.0.1")
    assert line["new"] == {"generation": 2, "changes": []}


def test_page_in_a_browser_cannot_reload(tmp_path: Path, provider: ReplayProvider) -> None:
    with running_proxy(tmp_path, provider.url) as proxy:
        page = f"""<script>
        async function send(method, path, options) {{
            try {{ const r = await fetch("{proxy.admin_url}" + path, {{method, ...options}}); return r.type; }}
            catch (error) {{ return "failed"; }}
        }}
        (async () => {{
            const form = document.createElement("form");
            const frame = document.createElement("iframe");
            frame.name = "frame"; document.body.append(frame, form);
            form.method = "POST"; form.action = "{proxy.admin_url}/reload"; form.target = "frame";
            const loaded = new Promise(resolve => frame.addEventListener("load", resolve));
            form.submit(); await loaded;
            const sent = [
                await send("POST", "/reload", {{mode: "no-cors"}}),
                await send("POST", "/reload", {{headers: {{Authorization: "Bearer {ADMIN_TOKEN}"}}}}),
                await send("GET", "/metrics", {{headers: {{Authorization: "Bearer {ADMIN_TOKEN}"}}}}),
            ];
            await fetch("/result", {{method: "POST", body: JSON.stringify(sent)}});
        }})();
        </script>"""
        sent = open_page(tmp_path, f"<body>{page}</body>")
        lines = [json.loads(line) for line in proxy.wait_for_log_lines("request rejected", 3)]
        generation = request(proxy, "POST", "/reload?dry_run=1", BEARER).json()["generation"]

    # The page learns nothing: an opaque response, and two that its browser does not even send.
    assert sent == ["opaque", "failed", "failed"]
    assert {(line["status"], line["code"]) for line in lines} == {(403, "foreign_origin")}
    assert [line["method"] for line in lines if line["path"] == "/reload"].count("POST") >= 2
    assert generation == 1


def test_each_request_is_one_json_log_line(proxy: ProxyProcess, provider: ReplayProvider) -> None:
    provider.response = ProviderResponse(chunks=(CHAT_RESPONSE,))
    response = post_chat(proxy)

    line = json.loads(proxy.wait_for_log(response.headers["llm-proxy-request-id"]))

    assert line["message"] == "request"
    assert (line["provider"], line["endpoint"], line["model"]) == ("openai", "/v1/chat/completions", "gpt-4o-mini")
    assert (line["status"], line["outcome"], line["basis"]) == (200, "completed", "reported")
    assert (line["participant"], line["room"]) == ("ada", "lab")
    assert line["total_usd"] == "0.000004725000"  # 10 x 0.15 + 5 x 0.60 per million, and 5 % on top
