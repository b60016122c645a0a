"""login, logout, whoami and token print, run as commands against a real identity provider (oidc-provider)."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import httpx2 as httpx
import jwt
import pytest

from tests.local.machine import Machine
from tests.oauth.fake_issuer import Response, running_fake_issuer
from tests.oauth.real_issuer import RealIssuer, running_real_issuer

SERVER = "https://llm.example.com"


def is_active(issuer: RealIssuer, refresh_token: str) -> bool:
    answer = httpx.post(
        f"{issuer.url}/token/introspection",
        data={"token": refresh_token},
        auth=("proxy", "introspection-secret"),
    )
    return bool(answer.json()["active"])


def test_login_in_a_browser_stores_a_session_that_only_the_user_can_read(machine: Machine, issuer: RealIssuer) -> None:
    machine.log_in(issuer, SERVER)

    shown = machine.run("whoami")

    lines = dict(line.split(": ") for line in shown.stdout.splitlines())
    assert lines["expires"].endswith("+00:00")
    del lines["expires"]
    assert lines == {"user": "ada@example.com", "server": SERVER, "issuer": issuer.url}
    assert stat.S_IMODE(machine.session_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.state.stat().st_mode) == 0o700


def test_token_print_prints_the_access_token_alone(machine: Machine, issuer: RealIssuer) -> None:
    machine.log_in(issuer, SERVER)

    printed = machine.run("token", "print").stdout

    claims = jwt.decode(printed.removesuffix("\n"), options={"verify_signature": False})
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("ada", "cli", "llm_proxy")
    assert printed == machine.read_session()["access_token"] + "\n"


def test_server_states_the_issuer_client_and_scopes(machine: Machine, issuer: RealIssuer) -> None:
    stated = {"issuer": issuer.url, "client_id": "cli", "scopes": ["openid", "llm_proxy"]}
    with running_fake_issuer() as server:
        server.responses["/config"] = Response({"oauth": stated, "version": "1"})
        assert machine.run("login", MESHAGENT_API_URL=server.url).returncode == 0

    session = machine.read_session()
    assert (session["upstream"], session["scopes"]) == (server.url, ["openid", "llm_proxy"])


def test_login_refused_by_the_person_ends_at_once(machine: Machine, issuer: RealIssuer) -> None:
    refused = machine.run("login", "--upstream", SERVER, "--issuer", issuer.url, "--client-id", "cli", PERSON="cancels")

    assert refused.returncode == 1
    assert "the login was refused" in refused.stderr
    assert not machine.session_file.exists()


def test_login_waits_at_most_the_given_time(machine: Machine, issuer: RealIssuer) -> None:
    arguments = ("--upstream", SERVER, "--issuer", issuer.url, "--client-id", "cli", "--timeout", "1")
    began = time.monotonic()

    late = machine.run("login", *arguments, PERSON="leaves")

    assert (late.returncode, "no login within the time" in late.stderr) == (1, True)
    assert time.monotonic() - began < 10


def test_callback_with_another_state_issuer_or_host_is_refused_and_login_waits(
    machine: Machine, issuer: RealIssuer
) -> None:
    done = machine.run(
        "login", "--upstream", SERVER, "--issuer", issuer.url, "--client-id", "cli", PERSON="is attacked"
    )

    assert done.returncode == 0, done.stderr


def test_two_logins_at_once_use_two_ports(tmp_path: Path, issuer: RealIssuer) -> None:
    arguments = ("login", "--upstream", SERVER, "--issuer", issuer.url, "--client-id", "cli")
    first, second = (Machine(tmp_path / name).start(*arguments) for name in ("a", "b"))

    with first, second:
        assert [first.wait(30), second.wait(30)] == [0, 0]


@pytest.mark.parametrize("no_browser", [pytest.param(True, id="no browser"), pytest.param(False, id="--device")])
def test_login_on_a_device(machine: Machine, issuer: RealIssuer, no_browser: bool) -> None:
    options = () if no_browser else ("--device",)
    arguments = ("login", "--upstream", SERVER, "--issuer", issuer.url, "--client-id", "cli", *options)
    constants = json.dumps({"tornado_proxy.local.session.device_login.DEFAULT_INTERVAL_S": 0.2})

    with machine.start(
        *arguments, program="tests.server.with_constants", CONSTANTS=constants, BROWSER="/no/such/browser", PATH="/none"
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("Open "))
        issuer.confirm_device(line.split()[1])
        assert process.wait(30) == 0

    assert machine.read_session()["user"] == "ada@example.com"


def test_working_keyring_holds_the_refresh_token(machine: Machine, issuer: RealIssuer, tmp_path: Path) -> None:
    machine.environment = {
        "PYTHON_KEYRING_BACKEND": "tests.local.file_keyring.FileKeyring",
        "TEST_KEYRING": str(tmp_path / "keyring.json"),
    }
    machine.log_in(issuer, SERVER)
    entry = f"tornado-proxy cli at {issuer.url}"
    first = json.loads((tmp_path / "keyring.json").read_text())[entry]
    assert machine.read_session()["refresh_token"] == ""

    machine.age_session(3600)
    assert machine.run("token", "print").returncode == 0

    second = json.loads((tmp_path / "keyring.json").read_text())[entry]
    assert second != first
    assert is_active(issuer, second)
    machine.run("logout")
    assert json.loads((tmp_path / "keyring.json").read_text()) == {}


def test_150_requests_at_expiry_in_3_processes_are_one_refresh(
    machine: Machine, issuer: RealIssuer, tmp_path: Path
) -> None:
    machine.log_in(issuer, SERVER)
    old = machine.read_session()["access_token"]
    machine.age_session(3560)
    succeeded, failed = issuer.count_refreshes()
    start = tmp_path / "start"
    programs = [machine.start(program="tests.local.parallel_tokens", START=str(start)) for _ in range(3)]
    for process in programs:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    start.touch()
    results = [process.communicate(timeout=30) for process in programs]

    assert [errors for _, errors in results] == ["", "", ""]
    tokens = [token for output, _ in results for token in json.loads(output)]
    assert (len(tokens), len(set(tokens)), old in tokens) == (150, 1, False)
    assert issuer.count_refreshes() == (succeeded + 1, failed)
    assert is_active(issuer, machine.read_session()["refresh_token"])


def test_token_is_not_refreshed_before_its_last_minute(machine: Machine, issuer: RealIssuer) -> None:
    machine.log_in(issuer, SERVER)
    old = machine.read_session()["access_token"]
    machine.age_session(3530)

    assert machine.run("token", "print").stdout.strip() == old


def test_login_that_the_issuer_has_ended_names_login(machine: Machine, issuer: RealIssuer) -> None:
    machine.log_in(issuer, SERVER)
    issuer.revoke(machine.read_session()["refresh_token"])
    machine.age_session(3600)

    for _ in range(2):
        ended = machine.run("token", "print")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "the login on this machine has ended; run tornado-proxy login" in ended.stderr
    machine.log_in(issuer, SERVER)
    assert machine.run("token", "print").returncode == 0


def test_logout_revokes_the_login_and_forgets_it(machine: Machine, issuer: RealIssuer) -> None:
    machine.log_in(issuer, SERVER)
    refresh_token = machine.read_session()["refresh_token"]
    assert is_active(issuer, refresh_token)

    done = machine.run("logout")

    assert (done.returncode, done.stderr) == (0, f"logged out of {SERVER}\n")
    assert not is_active(issuer, refresh_token)
    assert not machine.session_file.exists()
    assert machine.run("logout").stderr == "not logged in\n"
    for command in (("whoami",), ("token", "print")):
        refused = machine.run(*command)
        assert (refused.returncode, "tornado-proxy login" in refused.stderr) == (1, True)


def test_unreachable_issuer_ends_no_session(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with running_real_issuer() as issuer:
        machine.log_in(issuer, SERVER)
        token = machine.read_session()["access_token"]
        issuer.stop()

        machine.age_session(3590)
        assert machine.run("token", "print").stdout.strip() == token
        machine.age_session(20)
        refused = machine.run("token", "print")
        assert (refused.returncode, "cannot be reached" in refused.stderr) == (1, True)
        assert machine.read_session()["ended"] is False

        gone = machine.run("logout")
        assert (gone.returncode, "did not revoke the login" in gone.stderr) == (0, True)
        assert not machine.session_file.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((), "the server is not known", id="no server"),
        pytest.param(("--upstream", "http://llm.example.com"), "is not an https URL", id="http"),
        pytest.param(("--upstream", SERVER, "--issuer", "https://i.example"), "need each other", id="no client"),
    ],
)
def test_login_needs_a_server_and_a_client(machine: Machine, arguments: tuple[str, ...], message: str) -> None:
    refused = machine.run("login", *arguments)

    assert refused.returncode == 2
    assert message in refused.stderr
