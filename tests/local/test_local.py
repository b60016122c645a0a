"""`tornado-proxy local`: credentials, refusals, refresh, output, and commands that it runs."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import websockets

from tests.browser import find_chromium, open_page
from tests.harness import OTHER_PROJECT, PROJECT, ROOT, ProxyProcess, mint, running_proxy, wait_until
from tests.local.local_proxy import LocalProxy, running_local
from tests.local.machine import Machine
from tests.oauth.real_issuer import RealIssuer
from tests.server.realtime import fetch_rejection
from tests.server.test_oauth import ADA, configure
from tornado_proxy.simulator import running_simulator

CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture(scope="module")
def proxy(issuer: RealIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The hosted proxy, which accepts participant tokens and logins."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_INTROSPECTION_SECRET", "introspection-secret")
        with (
            running_simulator() as upstream,
            running_proxy(tmp_path_factory.mktemp("hosted"), upstream, **configure(issuer, ADA)) as running,
        ):
            yield running


@pytest.fixture(scope="module")
def local(proxy: ProxyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProxy]:
    """A local proxy with a participant token."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    with running_local(machine, "--upstream", proxy.base_url, MESHAGENT_TOKEN=mint()) as running:
        yield running


@pytest.fixture(scope="module")
def insecure(proxy: ProxyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProxy]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    with running_local(machine, "--insecure", "--upstream", proxy.base_url, MESHAGENT_TOKEN=mint()) as running:
        yield running


def chat(local: LocalProxy, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{local.base_url}/v1/chat/completions", json=CHAT, headers={**local.headers, **headers}, timeout=30
    )


def code_of(response: httpx.Response) -> str:
    code: str = response.json()["error"]["code"]
    return code


def test_bearer_is_made_once_and_only_the_user_can_read_it(proxy: ProxyProcess, local: LocalProxy) -> None:
    file = local.machine.state / "local_bearer"

    with running_local(local.machine, "--upstream", proxy.base_url, MESHAGENT_TOKEN=mint()) as second:
        assert second.bearer == local.bearer == file.read_text().strip()

    assert re.fullmatch(r"tpl_[A-Za-z0-9_-]{43}", local.bearer)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_printed_block_has_the_variables_of_both_sdks(local: LocalProxy) -> None:
    assert local.lines[:7] == [
        "",
        "# Use these environment variables:",
        f"export OPENAI_BASE_URL={local.base_url}/openai/v1",
        f"export OPENAI_API_KEY={local.bearer}",
        f"export ANTHROPIC_BASE_URL={local.base_url}/anthropic",
        f"export ANTHROPIC_API_KEY={local.bearer}",
        "unset ANTHROPIC_AUTH_TOKEN",
    ]
    assert f"listening on {local.base_url} for project {PROJECT} (secure)" in local.errors


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        pytest.param("POST", "/v1/chat/completions", {"authorization": "bearer BEARER"}, id="scheme in lower case"),
        pytest.param("POST", "/anthropic/v1/messages", {"X-Api-Key": "BEARER"}, id="x-api-key"),
        pytest.param(
            "POST",
            "/anthropic/v1/messages",
            {"X-Api-Key": "sk-ant-leftover", "Authorization": "Bearer BEARER"},
            id="beside a leftover key",
        ),
    ],
)
def test_bearer_is_accepted_where_the_sdks_send_it(
    local: LocalProxy, proxy: ProxyProcess, method: str, path: str, headers: dict[str, str]
) -> None:
    sent = {name: value.replace("BEARER", local.bearer) for name, value in headers.items()}
    body = CHAT if "chat" in path else {**CHAT, "model": "claude-haiku-4-5", "max_tokens": 20}

    response = httpx.request(method, local.base_url + path, json=body, headers=sent)

    assert response.status_code == 200
    assert proxy.read_record(response.headers["llm-proxy-request-id"])["participant"] == "ada"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer tpl_other"},
        {"Authorization": "Basic x"},
        {"Authorization": "Bearer"},
    ],
)
def test_request_without_the_bearer_is_401_in_the_providers_shape(local: LocalProxy, headers: dict[str, str]) -> None:
    openai_error = httpx.post(f"{local.base_url}/v1/chat/completions", json=CHAT, headers=headers)
    anthropic_error = httpx.post(f"{local.base_url}/anthropic/v1/messages", json=CHAT, headers=headers)

    assert (openai_error.status_code, code_of(openai_error)) == (401, "invalid_api_key")
    assert anthropic_error.status_code == 401
    assert anthropic_error.json()["type"] == "error"
    assert "bearer of the local proxy" in anthropic_error.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({"Host": "evil.test:8766"}, "foreign_host", id="name that leads here"),
        pytest.param({"Host": "evil"}, "foreign_host", id="name without a dot"),
        pytest.param({"Origin": "https://evil.test"}, "foreign_origin", id="page"),
        pytest.param({"Origin": "null"}, "foreign_origin", id="page in a sandbox"),
        pytest.param({"Origin": "http://127.0.0.1:3000"}, "foreign_origin", id="page of this machine"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, "foreign_origin", id="image or script"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, "foreign_origin", id="another port"),
    ],
)
@pytest.mark.parametrize("mode", ["local", "insecure"])
def test_requests_of_pages_are_refused_in_both_modes(
    mode: str, headers: dict[str, str], code: str, request: pytest.FixtureRequest
) -> None:
    local: LocalProxy = request.getfixturevalue(mode)
    port = int(local.base_url.rpartition(":")[2])
    host = headers.get("Host", f"127.0.0.1:{port}")
    others = {name: value for name, value in headers.items() if name != "Host"}

    response = chat(local, **headers)
    rejection = asyncio.run(
        fetch_rejection(
            f"ws://{host}/v1/responses", host="127.0.0.1", port=port, additional_headers={**local.headers, **others}
        )
    )
    preflight = httpx.options(
        f"{local.base_url}/v1/models", headers={**headers, "Access-Control-Request-Method": "POST"}
    )

    assert (response.status_code, code_of(response)) == (403, code)
    assert (rejection.status_code, preflight.status_code) == (403, 403)
    assert not any(name.startswith("access-control") for name in preflight.headers)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("text/plain", 403),
        ("application/x-www-form-urlencoded", 403),
        ("", 403),
    ],
)
def test_insecure_proxy_takes_no_body_that_a_form_can_send(
    insecure: LocalProxy, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}

    response = httpx.post(
        f"{insecure.base_url}/v1/chat/completions", content=json.dumps(CHAT).encode(), headers=headers
    )

    assert response.status_code == status


PAGE = """<body><script>
const attempts = [];
for (const base of %s) {
  attempts.push(fetch(base + '/v1/chat/completions', {method: 'POST', mode: 'no-cors', body: %s}));
  attempts.push(fetch(base + '/v1/models'));
  attempts.push(fetch(base + '/v1/models', {headers: {'Content-Type': 'application/json'}}));
  attempts.push(new Promise(done => {
    const frame = Object.assign(document.createElement('iframe'), {name: base});
    document.body.append(frame);
    frame.onload = () => done();
    const form = document.body.appendChild(document.createElement('form'));
    Object.assign(form, {method: 'POST', enctype: 'text/plain', target: base, action: base + '/v1/chat/completions'});
    form.submit();
  }));
  attempts.push(new Promise(done => {
    const image = new Image(); image.onerror = image.onload = done; image.src = base + '/v1/models';
  }));
  attempts.push(new Promise(done => {
    const socket = new WebSocket(base.replace('http', 'ws') + '/v1/responses');
    socket.onopen = () => done('opened'); socket.onerror = () => done('refused');
  }));
}
Promise.allSettled(attempts).then(results => fetch('/result', {method: 'POST', body: JSON.stringify(
  results.map(result => result.value === 'opened' || (result.value && result.value.ok) || false))}));
</script>"""


def count_refused_pages(lines: list[str]) -> int:
    return sum(" 403 " in line and "foreign_origin" in line for line in lines)


def count_records(running: LocalProxy) -> int:
    """Return the number of records when those of all earlier requests are in the ledger."""
    response = chat(running)
    running.read_records(1, request_id=response.headers["llm-proxy-request-id"])
    return len(running.read_records(0))


def test_page_in_a_browser_gets_nothing_in_both_modes(local: LocalProxy, insecure: LocalProxy, tmp_path: Path) -> None:
    find_chromium()
    proxies = (local, insecure)
    before = [count_records(running) for running in proxies]
    page = PAGE % (json.dumps([running.base_url for running in proxies]), json.dumps(json.dumps(CHAT)))

    assert open_page(tmp_path, page) == [False] * 12

    for running, count in zip(proxies, before, strict=True):
        # A request without CORS, two with it (of one only the preflight), a form, an image and a WebSocket.
        wait_until(lambda lines=running.lines: count_refused_pages(lines) >= 6, "six refusals")  # type: ignore[misc]  # bound now
        assert len(running.read_records(0)) == count


def test_allowed_origin_gets_cors_and_needs_the_bearer(proxy: ProxyProcess, local: LocalProxy) -> None:
    origin = "http://localhost:5173"
    options = ("--allow-origin", origin, "--allow-host", "llm.test", "--upstream", proxy.base_url)
    with running_local(local.machine, *options, MESHAGENT_TOKEN=mint()) as allowing:
        preflight = httpx.options(
            f"{allowing.base_url}/v1/models",
            headers={"Origin": origin, "Access-Control-Request-Method": "GET", "Sec-Fetch-Site": "cross-site"},
        )
        page = {"Origin": origin, "Sec-Fetch-Site": "same-site"}

        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert chat(allowing, **page).headers["Access-Control-Allow-Origin"] == origin
        assert chat(allowing, **page, Authorization="Bearer x").status_code == 401
        assert chat(allowing, Origin="http://localhost:5174").status_code == 403
        assert chat(allowing, Host="llm.test").status_code == 200
        assert chat(allowing, Host="llm2.test").status_code == 403


def test_paths_that_no_provider_has_are_404(local: LocalProxy) -> None:
    for path in ("/", "/healthz", "/accounts/projects", "/config", "/v1/files"):
        assert httpx.get(local.base_url + path, headers=local.headers).status_code == 404, path


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "message"),
    [
        pytest.param(("--insecure", "--bearer", "x"), {}, 2, "exclude each other", id="--insecure with --bearer"),
        pytest.param(("--bearer", ""), {}, 2, "printable ASCII", id="blank bearer"),
        pytest.param(("--token-from-env", ""), {}, 2, "the name of an environment variable", id="blank name"),
        pytest.param(("--token-from-env", "NONE"), {}, 1, "NONE is empty or not set", id="variable not set"),
        pytest.param(("--allow-origin", "*"), {}, 2, "is not an origin", id="every origin"),
        pytest.param(("--allow-origin", "http://a.test/x"), {}, 2, "is not an origin", id="origin with a path"),
        pytest.param((), {}, 1, "run tornado-proxy login, or set MESHAGENT_TOKEN", id="no credential"),
        pytest.param((), {"MESHAGENT_TOKEN": "tp_x"}, 1, "the project is not known", id="no project"),
        pytest.param(
            ("--project", OTHER_PROJECT), {"MESHAGENT_TOKEN": mint()}, 1, "the token is for project", id="contradiction"
        ),
        pytest.param(("--upstream", "ftp://x"), {"MESHAGENT_TOKEN": mint()}, 2, "not an https URL", id="bad URL"),
    ],
)
def test_start_is_refused_with_a_reason(
    machine: Machine, arguments: tuple[str, ...], environment: dict[str, str], status: int, message: str
) -> None:
    refused = machine.run("local", *arguments, **{"MESHAGENT_API_URL": "http://127.0.0.1:1", **environment})

    assert refused.returncode == status, refused.stderr
    assert message in refused.stderr


def test_start_without_a_project_names_those_of_the_login(
    machine: Machine, proxy: ProxyProcess, issuer: RealIssuer
) -> None:
    machine.log_in(issuer, proxy.base_url)

    refused = machine.run("local")

    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "Error: the project is not known; name it with --project or MESHAGENT_PROJECT_ID; yours are:",
        f"  {PROJECT} (first)",
    ]


def test_start_says_that_the_server_has_other_prices(local: LocalProxy, machine: Machine, tmp_path: Path) -> None:
    prices = tmp_path / "prices"
    shutil.copytree(ROOT / "conf" / "prices", prices)
    changed = (prices / "openai.yaml").read_text().replace('input_tokens: "0.15"', 'input_tokens: "0.14"')
    (prices / "openai.yaml").write_text(changed)
    text = "the server has other prices than this version, so its bills can differ from the amounts here"
    pricing = {"path": str(prices), "surcharge_rate": "0.05"}
    with (
        running_proxy(tmp_path, "http://127.0.0.1:1", pricing=pricing) as proxy,
        running_local(machine, "--upstream", proxy.base_url, MESHAGENT_TOKEN=mint()) as other,
    ):
        assert text in other.errors
    assert text not in local.errors


def test_port_in_use_is_named(machine: Machine, local: LocalProxy) -> None:
    port = local.base_url.rpartition(":")[2]

    refused = machine.run("local", "--port", port, "--upstream", "http://127.0.0.1:1", MESHAGENT_TOKEN=mint())

    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr


def test_lines_and_totals_are_readable(proxy: ProxyProcess, local: LocalProxy) -> None:
    with running_local(local.machine, "--upstream", proxy.base_url, "--bearer", "own", MESHAGENT_TOKEN=mint()) as own:
        assert own.bearer == "own"
        chat(own)
        body = {**CHAT, "model": "gpt\x1b[31m\nforged"}
        httpx.post(f"{own.base_url}/v1/chat/completions", json=body, headers=own.headers)
        chat(own, Authorization="Bearer x")
        wait_until(lambda: len(own.lines) >= 11, "three lines")
        assert own.stop() == 0

    first, second, third, last = own.lines[8:12]
    assert re.fullmatch(r"\d\d:\d\d:\d\d 200 POST /v1/chat/completions gpt-4o-mini \d+ \$0\.0000\d+ \d+ms", first), (
        own.lines
    )
    assert " 400 POST /v1/chat/completions " in second
    assert "\x1b" not in second
    assert " 401 POST /v1/chat/completions invalid_api_key: " in third
    assert re.fullmatch(r"2 requests, \$0\.0000\d+ subtotal, \$0\.00000\d+ surcharge, \$0\.0000\d+ total", last)


def test_log_for_programs_is_json(proxy: ProxyProcess, local: LocalProxy) -> None:
    options = ("--log", "json", "--upstream", proxy.base_url)
    with running_local(local.machine, *options, MESHAGENT_TOKEN=mint()) as own:
        response = chat(own)
        wait_until(lambda: bool(own.lines), "a line")
        own.stop()

    request, totals = (json.loads(line) for line in own.lines)
    usage = response.json()["usage"]
    assert set(request) == {
        *("time", "status", "method", "path", "provider", "model", "tokens", "subtotal", "surcharge", "total"),
        *("basis", "first_byte_ms", "duration_ms", "request_id"),
    }
    assert request["request_id"] == response.headers["llm-proxy-request-id"]
    assert (request["tokens"], request["basis"]) == (usage["total_tokens"], "reported")
    assert (totals["requests"], totals["total"]) == (1, request["total"])


def test_usage_and_explain_read_the_local_ledger(local: LocalProxy, tmp_path: Path) -> None:
    request_id = chat(local).headers["llm-proxy-request-id"]
    local.read_records(1, request_id=request_id)

    explained = local.machine.run("explain", request_id, cwd=tmp_path)
    used = local.machine.run("usage", "--format", "jsonl", cwd=tmp_path)

    assert (explained.returncode, "gpt-4o-mini" in explained.stdout) == (0, True), explained.stderr
    assert request_id in used.stdout


def test_command_gets_the_variables_and_no_token(machine: Machine, proxy: ProxyProcess) -> None:
    leftovers = {"ANTHROPIC_AUTH_TOKEN": "x", "MESHAGENT_API_KEY": "x", "MESHAGENT_TOKEN": "x", "OWN": mint()}
    options = ("--token-from-env", "OWN", "--port", "0", "--upstream", proxy.base_url)

    done = machine.run("local", *options, "--", sys.executable, "-c", SHOW, **leftovers)

    shown = json.loads(done.stdout)
    assert not set(leftovers) & set(shown)
    assert shown["OPENAI_API_KEY"] == shown["ANTHROPIC_API_KEY"] == (machine.state / "local_bearer").read_text().strip()
    assert shown["OPENAI_BASE_URL"].endswith("/openai/v1")
    assert "export OPENAI_BASE_URL=" in done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [(("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -TERM $$"), 143), (("no-such-command",), 127)],
)
def test_exit_status_is_that_of_the_command(
    machine: Machine, proxy: ProxyProcess, command: tuple[str, ...], status: int
) -> None:
    done = machine.run("local", "--port", "0", "--upstream", proxy.base_url, "--", *command, MESHAGENT_TOKEN=mint())

    assert done.returncode == status
    assert not list((machine.state / "run").iterdir())


def test_login_pays_as_its_user_and_ends_at_logout(machine: Machine, proxy: ProxyProcess, issuer: RealIssuer) -> None:
    machine.log_in(issuer, proxy.base_url)
    with running_local(machine, "--project", PROJECT) as local:
        response = chat(local)
        record = proxy.read_record(response.headers["llm-proxy-request-id"])
        assert (response.status_code, record["user"]) == (200, "ada")

        machine.run("logout")
        refused = chat(local)
        assert (refused.status_code, code_of(refused)) == (401, "login_required")
        assert "run tornado-proxy login" in refused.json()["error"]["message"]

        machine.log_in(issuer, proxy.base_url)
        assert chat(local).status_code == 200


def test_50_requests_at_expiry_in_3_programs_are_one_refresh(
    machine: Machine, proxy: ProxyProcess, issuer: RealIssuer
) -> None:
    machine.log_in(issuer, proxy.base_url)
    with (
        running_local(machine, "--project", PROJECT) as first,
        running_local(machine, "--project", PROJECT) as second,
        running_local(machine, "--project", PROJECT) as third,
        ThreadPoolExecutor(51) as threads,
    ):
        old = machine.read_session()
        machine.age_session(3600)
        succeeded, failed = issuer.count_refreshes()

        whoami = threads.submit(machine.run, "whoami")
        responses = list(threads.map(chat, ([first, second, third] * 17)[:50]))

        assert [response.status_code for response in responses] == [200] * 50
        assert whoami.result().returncode == 0
        assert issuer.count_refreshes() == (succeeded + 1, failed)
    new = machine.read_session()
    assert new["access_token"] != old["access_token"]
    # A second refresh with the old token would have ended the login.
    assert issuer.request_token(grant_type="refresh_token", refresh_token=new["refresh_token"]).status_code == 200


def test_token_that_the_server_refuses_is_replaced_once(
    machine: Machine, proxy: ProxyProcess, issuer: RealIssuer
) -> None:
    machine.log_in(issuer, proxy.base_url)
    with running_local(machine, "--project", PROJECT) as local:
        for attempt in ("http", "websocket"):
            session = machine.read_session()
            refused = {**session, "access_token": session["access_token"][:-6] + "AAAAAA"}
            machine.session_file.write_text(json.dumps(refused))
            if attempt == "http":
                assert chat(local).status_code == 200
            else:
                asyncio.run(open_session(local))
            assert machine.read_session()["access_token"] != refused["access_token"]

        issuer.revoke(machine.read_session()["refresh_token"])
        session = machine.read_session()
        machine.session_file.write_text(
            json.dumps({**session, "access_token": session["access_token"][:-6] + "AAAAAA"})
        )
        assert chat(local).status_code == 401  # the server's own, passed on
        assert code_of(chat(local)) == "login_required"


async def open_session(local: LocalProxy) -> None:
    url = f"ws{local.base_url.removeprefix('http')}/v1/responses"
    async with websockets.connect(url, additional_headers=local.headers):
        pass


def test_running_proxy_is_announced_to_the_user_alone(local: LocalProxy) -> None:
    file = local.machine.state / "run" / f"{local.process.pid}.json"

    assert json.loads(file.read_text()) == {
        "url": local.base_url,
        "project": PROJECT,
        "bearer": local.bearer,
        "pid": local.process.pid,
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
